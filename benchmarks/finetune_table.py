"""Fine-tune a default run on 700 pictures of another look, in several ways: what each learns, and what each forgets.

python -m benchmarks.finetune_table runs/last --limit 300

The pictures are scenes by night (dim, bluish, blurred, noisy) whose texts are built otherwise than those of the
embedded set; rules write their negatives. Ways that were measured in OUTPUT already are not measured again.
"""

import argparse
import io
import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from fgclip_fast import suites
from fgclip_fast.config import Config, Lora
from fgclip_fast.curate import Negatives, write_negatives
from fgclip_fast.data.shards import ShardWriter, expand
from fgclip_fast.evaluation import fg_ovd
from fgclip_fast.files.whole_file import write_json
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.presets import PRESETS
from fgclip_fast.scenes.compose import Placed
from fgclip_fast.scenes.locate import embedded
from fgclip_fast.scenes.write import jpeg, record_of, scene_of
from fgclip_fast.suites import Task
from fgclip_fast.train import train

TRAIN, VAL = 700, 200
LEVELS = ("hard", "medium", "easy", "noun", "colour")
"""Levels of the embedded set, on pairs of noun and colour that neither the default run nor the fine-tuning shows."""
SEED = 1
"""The embedded set is drawn from seed 0."""
_NIGHT = np.array([0.30, 0.34, 0.48], np.float32)  # of the light, for red, green and blue

# A fifth of the rate that the default run learned at, and ten times that where only adapters train.
FULL = replace(
    PRESETS["finetune-vit-b16"], batch_size=16, epochs=5, eval_every=0, checkpoint_every=0, precision="fp32",
    optim=replace(PRESETS["finetune-vit-b16"].optim, lr=2e-4),
)  # fmt: skip
WAYS: dict[str, Config] = {
    "all weights": FULL,
    "all weights, `--optim.l2-start 100`": replace(FULL, optim=replace(FULL.optim, l2_start=100.0)),
    "`--freeze text`": replace(FULL, freeze="text"),
    "`--freeze vision`": replace(FULL, freeze="vision"),
    "`--freeze all-but-projections`": replace(FULL, freeze="all-but-projections"),
    "`--lora.rank 8`": replace(FULL, lora=Lora(rank=8), optim=replace(FULL.optim, lr=2e-3)),
}


def main() -> None:
    """Write the pictures, measure the run and each way, and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a default run, or its weights")
    parser.add_argument("--output", type=Path, default=Path("finetune-table"), help="folder for pictures and runs")
    parser.add_argument("--limit", type=int, help="questions of each level; all if left out")
    chosen = parser.parse_args()
    shards = chosen.output / "shards"
    if not (shards / "negatives.json").exists():
        write_pictures(chosen.output / "plain")
        write_negatives(expand(str(chosen.output / "plain")), shards, Negatives(), workers=1)
    figures = {"before": kept(chosen.output / "before.json", lambda: _before(chosen.run, shards, chosen.limit))}
    for number, (name, way) in enumerate(WAYS.items()):
        data = replace(way.data, train=str(shards / "train-*.tar"), val=str(shards / "val-*.tar"), workers=0)
        config = replace(way, init=chosen.run, data=data, threads=1, output=str(chosen.output / f"run-{number}"))
        figures[name] = kept(chosen.output / f"{number}.json", lambda c=config: _after(c, shards, chosen.limit))
    print(table(figures))
    print(f"\n{os.cpu_count()} cores, {platform.processor() or platform.machine()}, torch {torch.__version__}")


def write_pictures(folder: Path) -> None:
    """Write shards of pictures to train on and of held-out ones, without negatives."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, places in (("train", range(TRAIN)), ("val", range(TRAIN, TRAIN + VAL))):
        with ShardWriter(folder / f"{name}-00000.tar") as shard:
            for i in places:
                scene = scene_of("train", i, SEED)
                regions = [_region(placed, Random(f"{i} {n}")) for n, placed in enumerate(scene.placed)]
                old = record_of(scene, "train", i, SEED)
                boxes = [region["bbox"] for region in old["bbox_info"]]
                regions = [{"bbox": box, **region} for box, region in zip(boxes, regions, strict=True)]
                fields = {"short_caption": old["short_caption"], "caption": old["caption"], "bbox_info": regions}
                shard.write(f"{i:06d}", jpg=by_night(jpeg(scene), i), json=json.dumps(fields).encode())


def by_night(encoded: bytes, seed: int) -> bytes:
    """The same picture in little light: dim and bluish, blurred, with the noise of a sensor."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB").filter(ImageFilter.GaussianBlur(0.8))
    noise = np.random.default_rng((SEED, seed)).normal(0.0, 8.0, (image.height, image.width, 3))
    dim = np.asarray(image, np.float32) * _NIGHT + noise
    file = io.BytesIO()
    Image.fromarray(dim.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def _region(placed: Placed, rng: Random) -> dict[str, Any]:
    """The texts of a thing, in an order of words that the embedded set never has."""
    t = placed.thing
    short = rng.choice((
        f"a {t.size} {t.pattern} {t.noun} that is {t.colour}",
        f"a {t.finish} {t.noun} that is {t.colour}",
        f"a {t.size} {t.finish} {t.pattern} {t.noun} that is {t.colour}",
    ))  # fmt: skip
    return {"short_expr": short, "long_expr": f"at night, {short}, with a {t.finish} and {t.pattern} surface"}


def _before(run: str, shards: Path, limit: int | None) -> dict[str, Any]:
    return measured(pretrained.load(run), shards, limit)


def _after(config: Config, shards: Path, limit: int | None) -> dict[str, Any]:
    begun = time.process_time()
    model = train(config).model
    minutes = (time.process_time() - begun) / 60
    return measured(model, shards, limit) | {"minutes": minutes}


def measured(model: FGCLIP, shards: Path, limit: int | None) -> dict[str, Any]:
    """Top-1 of a model on the held-out pictures and on levels of the embedded set."""
    data = replace(PRESETS["tiny"].data, train="", val=str(shards / "val-*.tar"))
    new = suites.evaluate(model, ["records"], Task(data=data))["records"].values
    model.eval()
    return {"new": new["hard_negative_top1"], **levels_of(model, limit, embedded() / "levels")}


def levels_of(model: FGCLIP, limit: int | None, folder: Path) -> dict[str, float]:
    """Top-1 of a model on levels of the embedded set, in its folder ``levels``."""
    files = {name: folder / "unseen" / f"{name}.jsonl" for name in LEVELS}
    return {
        name: fg_ovd.evaluate(model, file, folder / "images", limit=limit).values["top1"]
        for name, file in files.items()
    }


def kept(path: Path, measure: Any) -> dict[str, Any]:
    """The figures in a file, measured and written if it does not exist."""
    if not path.exists():
        write_json(path, measure())
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def table(figures: dict[str, dict[str, Any]]) -> str:
    """The figures in percent, a way a line."""
    rows = [["", "new pictures", *LEVELS, "core minutes"], ["---"] * (len(LEVELS) + 3)]
    for name, found in figures.items():
        shares = [f"{100 * found[key]:.1f}" for key in ("new", *LEVELS)]
        rows.append([name, *shares, f"{found['minutes']:.1f}" if "minutes" in found else ""])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
