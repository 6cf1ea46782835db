"""Folders of small untrained runs, as training leaves them, for tests of the code that reads runs."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fgclip_fast.config import Config, Data, yaml_file
from fgclip_fast.data.shards import ShardWriter
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.scenes.locate import decided
from fgclip_fast.training import checkpoint
from tests.models import MINI

MODEL = replace(MINI, projection=16)
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=document.title='broken'>",
    "\" onmouseover='alert(2)' &amp; <!-- \u202e \x00",
)


def run(path: Path, *, data: Data, seed: int = 0, saved: bool = True, **files: Any) -> Path:
    """Write a run's folder.

    Args:
        path: the folder.
        data: of the config.
        seed: of the weights.
        saved: write a checkpoint.
        files: ``log``, lines of the log; ``figures``, of the evaluation; ``steps``, of the config.
    """
    path.mkdir(parents=True)
    config = Config(
        model=MODEL, data=decided(data), output=str(path), steps=files.get("steps", 3), batch_size=2, seed=seed
    )
    yaml_file.save(config, path / "config.yaml")
    (path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in files.get("log", steps(3))))
    if "figures" in files:
        (path / "evaluation.json").write_text(json.dumps(files["figures"]))
    if saved:
        torch.manual_seed(seed + 100)
        checkpoint.save(path, 3, FGCLIP(MODEL).save, {}, keep=1)
    return path


def steps(count: int) -> list[dict[str, Any]]:
    """Log lines of training steps, with a validation and counts of bad records after them."""
    terms = {"total": 3.0, "short": 2.0, "long": 2.0, "region": 1.0, "hard_negative": 0.5, "grad_norm": 1.0}
    rates = {"skipped": 0.0, "lr": 1e-3, "images_per_s": 4.0, "tokens_per_s": 100.0, "waiting": 0.1, "memory_gb": 1.0}
    lines: list[dict[str, Any]] = [{"step": i + 1, "kind": "train", **terms, **rates} for i in range(count)]
    lines.append({"step": count, "kind": "validation", "hard_negative_top1": 0.4})
    lines.append(
        {"step": count, "kind": "time", "vision": 0.2, "text": 0.1, "data": 0.0, "loss": 0.1, "optimizer": 0.1}
    )
    return [*lines, {"step": count, "kind": "records", "empty box": 7}]


def level(top1: float = 0.9) -> dict[str, Any]:
    """Figures of one level."""
    return {"top1": top1, "interval": [top1 - 0.05, top1 + 0.05], "chance": 0.09, "questions": 100, "skipped": {}}


def shard(path: Path, texts: Sequence[str], size: tuple[int, int] = (40, 30)) -> Path:
    """Write a shard with an image for each text, which is its caption and the text of its box."""
    with ShardWriter(path) as writer:
        for number, text in enumerate(texts):
            buffer = io.BytesIO()
            Image.new("RGB", size, (40 * number % 256, 90, 200)).save(buffer, "JPEG")
            region = {"bbox": [0.1, 0.2, 0.6, 0.9], "short_expr": text, "long_expr": text, "flag_short_neg": 1}
            region["short_expr_negs"] = {"0": f"not {text}", "1": "a cup"}
            record = {"short_caption": text, "caption": text, "bbox_info": [region]}
            writer.write(f"{number:06d}", jpg=buffer.getvalue(), json=json.dumps(record).encode())
    return path


def untouched(data: Data, **changes: Any) -> Data:
    """Data settings with no worker processes."""
    return replace(data, workers=0, **changes)
