"""The model before its first step, and its figures: what the report compares training with."""

from dataclasses import asdict
from typing import Any

import torch

from fgclip_fast import suites
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.report.files import RunFiles, read_json
from fgclip_fast.suites import Task
from fgclip_fast.training import start
from fgclip_fast.whole_file import finite, write_json

CACHE = "untrained.json"
"""File in a run's folder that keeps the figures."""
LIMIT = 256
"""Questions of a level, or records, at most; enough to tell chance from skill."""


def model(run: RunFiles) -> FGCLIP | None:
    """Build the model as it began: random weights from the run's seed, or those of ``init``; None if these are gone."""
    try:
        return start.again(run.config)
    except (FileNotFoundError, ValueError):
        return None


def figures(run: RunFiles, device: torch.device | str) -> dict[str, Any]:
    """Evaluate the untrained model on what the run evaluates at its end.

    The figures are kept in the run's folder, so that the next report is quick.

    Args:
        run: the run.
        device: where the model is evaluated.

    Returns:
        suite → figures, None for NaN; empty without validation data or without the initial weights.
    """
    path, key = run.path / CACHE, _key(run)
    saved = read_json(path)
    if saved.get("of") == key:
        return saved["figures"]
    began = model(run) if run.config.data.val else None
    if began is None:
        return {}
    task = Task(data=run.source.data, loss=run.config.loss, limit=LIMIT)
    try:
        found = suites.values(suites.evaluate(began.to(device), suites.of_run(run.source), task))
    except OSError:  # the validation shards have moved
        return {}
    found = finite(found)
    write_json(path, {"of": key, "limit": LIMIT, "figures": found}, indent=None)
    return found


def _key(run: RunFiles) -> dict[str, Any]:
    """The settings that the figures depend on."""
    return {
        "model": asdict(run.config.model),
        "init": run.config.init,
        "seed": run.config.seed,
        "data.val": run.source.data.val,
    }
