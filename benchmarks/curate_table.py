"""Train the tiny preset on scenes that were curated, and on their true annotations: what does a model lose?

python -m benchmarks.curate_table --scenes 4000 --steps 1375

Each way trains for the same steps from the same seed, on the same images:

- ``true``: the annotations with which the scenes are drawn;
- ``rules``: the same without their negatives, which ``fgclip curate negatives`` writes again by rules;
- ``curated``: the images alone, through a recipe of all stages. The stub of the tests stands for the models: it
  writes the true captions, and the true boxes among false ones. Phrases, boxes and negatives are found anew.

Ways that were measured in OUTPUT already are not measured again.
"""

import argparse
import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.finetune_table import LEVELS, kept, levels_of
from fgclip_fast.curate import Negatives, write_negatives
from fgclip_fast.curate.captions import Captions
from fgclip_fast.curate.filters import Filter
from fgclip_fast.curate.finished import Shards
from fgclip_fast.curate.models.chat_model import Chat
from fgclip_fast.curate.models.detect import Detector
from fgclip_fast.curate.phrases import Phrases
from fgclip_fast.curate.recipe import Recipe, run_recipe
from fgclip_fast.curate.regions import Regions
from fgclip_fast.data.importers.work_folder import MANIFEST
from fgclip_fast.data.shards import Shard, ShardWriter, expand
from fgclip_fast.presets import PRESETS
from fgclip_fast.scenes.write import write_scenes
from fgclip_fast.train import train
from tests.curate.stub import Stub


def main() -> None:
    """Write the shards of each way, train on them, and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("curate-table"), help="folder for shards and runs")
    parser.add_argument("--scenes", type=int, default=4000, help="scenes to train on")
    parser.add_argument("--steps", type=int, default=1375, help="steps of each run")
    parser.add_argument("--limit", type=int, help="questions of each level; all if left out")
    chosen = parser.parse_args()
    true = chosen.output / "true"
    write_scenes(true, train=chosen.scenes)
    ways = {
        "true": true,
        "rules": by_rules(true, chosen.output),
        "curated": curated(true, chosen.output, chosen.scenes),
    }
    figures = {name: kept(chosen.output / f"{name}.json", lambda n=name: trained(ways[n], chosen, n)) for name in ways}
    print(table(figures))
    print(f"\n{os.cpu_count()} cores, {platform.processor() or platform.machine()}, torch {torch.__version__}")


def by_rules(true: Path, output: Path) -> Path:
    """Shards whose negatives were taken away and written again by rules."""
    if not (output / "rules" / "negatives.json").exists():
        for path in expand(str(true / "train-*.tar")):
            rewrite(path, output / "without" / path.name, without_negatives)
        write_negatives(expand(str(output / "without")), output / "rules", Negatives())
    return output / "rules"


def curated(true: Path, output: Path, scenes: int) -> Path:
    """Shards that a recipe of all stages makes of the images alone."""
    finished = output / "stages" / "6-shards"
    if (finished / MANIFEST).exists():
        return finished
    for path in expand(str(true / "train-*.tar")):
        if not (output / "images" / path.name).exists():
            rewrite(path, output / "images" / path.name, lambda record: {})
    with Stub(range(scenes)) as stub:
        chat, detector = Chat(model="stub", url=stub.url), Detector(model="stub", url=stub.url)
        stages = (
            Captions(chat=chat), Phrases(), Regions(detector=detector), Negatives(), Filter(), Shards(),
        )  # fmt: skip
        run_recipe(Recipe(str(output / "images" / "train-*.tar"), output / "stages", stages))
    return finished


def rewrite(source: Path, target: Path, change: Any) -> None:
    """Write a shard again with changed records."""
    shard = Shard(source)
    with ShardWriter(target) as written:
        for key, parts in (shard.read(i) for i in range(len(shard))):
            written.write(key, **parts | {"json": json.dumps(change(json.loads(parts["json"]))).encode()})


def without_negatives(record: dict[str, Any]) -> dict[str, Any]:
    """A record whose regions have no negatives."""
    for region in record["bbox_info"]:
        region.pop("short_expr_negs", None)
        region.pop("flag_short_neg", None)
    return record


def trained(shards: Path, chosen: Any, name: str) -> dict[str, Any]:
    """Top-1 of a run on the questions about held-out pairs of noun and colour, and the size of its set."""
    tiny = PRESETS["tiny"]
    data = replace(tiny.data, train=str(shards / "train-*.tar"), val="", workers=0)
    output = chosen.output / f"run-{name}"
    config = replace(tiny, data=data, steps=chosen.steps, eval_every=0, threads=1, output=str(output))
    model = train(config).model
    model.eval()
    return sizes_of(shards) | levels_of(model, chosen.limit, chosen.output / "true" / "levels")


def sizes_of(shards: Path) -> dict[str, Any]:
    """Images, regions and negatives of some shards."""
    sizes = {"images": 0, "regions": 0, "negatives": 0}
    for path in expand(str(shards / "train-*.tar")):
        shard = Shard(path)
        for regions in (json.loads(shard.read(i).parts["json"]).get("bbox_info", []) for i in range(len(shard))):
            sizes["images"] += 1
            sizes["regions"] += len(regions)
            sizes["negatives"] += sum(len(region.get("short_expr_negs", ())) for region in regions)
    return sizes


def table(figures: dict[str, dict[str, Any]]) -> str:
    """The sizes, and the figures in percent, a way a line."""
    rows = [["", "images", "regions", "negatives", *LEVELS], ["---"] * (len(LEVELS) + 4)]
    for name, found in figures.items():
        sizes = [f"{found[size]:,}" for size in ("images", "regions", "negatives")]
        rows.append([name, *sizes, *(f"{100 * found[level]:.1f}" for level in LEVELS)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
