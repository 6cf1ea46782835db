"""From a file of records and a folder of images to a fine-tuned model, evaluated before and after.

It draws a tiny data set and starts from random weights, so that it runs in seconds. For your own: write one JSON
record a line, and name a folder of FG-CLIP or CLIP weights.
"""

import json
import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from fgclip_fast import load, suites
from fgclip_fast.config import Config
from fgclip_fast.config.model import Model, Text, Vision
from fgclip_fast.data.importers import import_records
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.presets import PRESETS
from fgclip_fast.train import train

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")


def draw_records(folder: Path, count: int) -> Path:
    """Draw images of two squares, and write their records: captions, boxes in pixels, and wrong texts of each box."""
    random.seed(0)
    with (folder / "records.jsonl").open("w") as lines:
        for number in range(count):
            colours = random.sample(COLOURS, 2)
            # Noise, since images that differ in colour alone are taken for near-duplicates and stay in one split.
            image, regions = Image.effect_noise((96, 64), 60).convert("RGB"), []
            for colour, box in zip(colours, ([8, 12, 44, 52], [52, 12, 88, 52]), strict=True):
                ImageDraw.Draw(image).rectangle(box, fill=colour)
                wrong = {str(i): f"a {other} square" for i, other in enumerate(COLOURS) if other != colour}
                texts = {"short_expr": f"a {colour} square", "long_expr": f"a plain {colour} square on grey ground"}
                regions.append({"bbox": box, **texts, "short_expr_negs": wrong})
            image.save(folder / f"{number}.jpg")
            record = {"image": f"{number}.jpg", "short_caption": "a {} and a {} square".format(*colours)}
            record["caption"] = "On grey ground, a {} square stands to the left of a {} one.".format(*colours)
            record["bbox_info"] = regions
            lines.write(json.dumps(record) + "\n")
    return folder / "records.jsonl"


def small_model(folder: Path) -> Path:
    """Write a folder of random weights, in the layout of the released ones."""
    torch.manual_seed(0)
    vision = Vision(image_size=48, patch_size=8, width=64, layers=2, heads=2, mlp=128)
    FGCLIP(Model(vision=vision, text=Text(width=64, layers=1, heads=2, mlp=128), projection=64)).save(folder)
    return folder


def main(work: Path, weights: Path | None = None, steps: int = 60) -> tuple[float, float]:
    """Fine-tune on drawn records; returns the top-1 accuracy among each region's texts, before and after.

    Args:
        work: an empty folder for images, shards and the run.
        weights: a folder of FG-CLIP or CLIP weights; None: a small random model.
        steps: optimizer steps.
    """
    written, causes = import_records(draw_records(work, 64), work / "shards", val=0.3, workers=1)
    print(f"records: {dict(written)}, defects: {dict(causes) or 'none'}")
    preset = PRESETS["finetune-vit-b16"]
    shards = {"train": f"{work}/shards/train-*.tar", "val": f"{work}/shards/val-*.tar"}
    config = replace(
        preset,
        init=str(weights or small_model(work / "weights")),
        output=f"{work}/run",
        data=replace(preset.data, **shards, workers=0),
        steps=steps,
        batch_size=8,
        device="cpu",
        precision="fp32",
        # A fine-tuned model wants the preset's rate, 2e-6. These random weights need much more.
        optim=preset.optim if weights else replace(preset.optim, lr=1e-3, warmup=10),
    )
    before = _top1(load(str(config.init)), config)
    after = _top1(train(config).model, config)
    print(f"right text of {len(COLOURS)}: {before:.0%} before, {after:.0%} after")
    return before, after


def _top1(model: FGCLIP, config: Config) -> float:
    return suites.evaluate(model, ["records"], suites.Task(data=config.data))["records"].values["hard_negative_top1"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder), Path(sys.argv[1]) if len(sys.argv) > 1 else None)
