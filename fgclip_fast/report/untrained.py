"""The model as it was before its first step, and what it can do: the figures that training is compared with."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fgclip_fast import evaluate
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.report.files import RunFiles
from fgclip_fast.scenes.locate import EMBEDDED, embedded

CACHE = "untrained.json"
LIMIT = 256
"""Questions of a level, or records: enough to see chance."""


def model(run: RunFiles) -> FGCLIP | None:
    """The run's model as it began: its seed's random weights, or those it started from; None where these are gone."""
    if run.config.init is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.config.seed)
            return FGCLIP(run.config.model).eval()
    try:
        return pretrained.load(run.config.init).eval()
    except (FileNotFoundError, ValueError):
        return None


def figures(run: RunFiles) -> dict[str, Any]:
    """Its figures on what the run evaluates; kept in the run's folder, so that the next report is quick."""
    path, key = run.path / CACHE, _key(run)
    if path.is_file():
        saved = json.loads(path.read_text())
        if saved.get("of") == key:
            return saved["figures"]
    began = model(run) if run.config.data.val else None
    if began is None:
        return {}
    began.to("cuda" if torch.cuda.is_available() else "cpu")
    found = evaluate.on_levels(began, LIMIT) if run.config.data.val == EMBEDDED else {}
    try:
        found["records"] = evaluate.on_records(began, run.config, LIMIT)
    except (FileNotFoundError, OSError):  # the validation shards have moved
        return {}
    _write(path, {"of": key, "limit": LIMIT, "figures": found})
    return found


def _key(run: RunFiles) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "model": asdict(run.config.model),
        "init": run.config.init,
        "seed": run.config.seed,
        "data.val": embedded().name if run.config.data.val == EMBEDDED else run.config.data.val,
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, default=lambda _: None))
    partial.replace(path)
