"""The model before its first step, and its figures: what the report compares training with."""

from dataclasses import asdict
from typing import Any

import torch

from fgclip_fast import suites
from fgclip_fast.evaluation.comparison import Difference, difference
from fgclip_fast.figures_file import values
from fgclip_fast.files.whole_file import finite, write_json
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.report import outcomes
from fgclip_fast.report.files import RunFiles, read_json
from fgclip_fast.suites import Task
from fgclip_fast.training import start

CACHE = "untrained.json"
"""File in a run's folder that keeps the figures."""
LIMIT = 256
"""Questions of a level of the embedded set, or of its records, at most; enough to tell chance from skill."""


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
    return _measured(run, device).get("figures", {})


def differences(run: RunFiles, device: torch.device | str, trained: FGCLIP) -> dict[str, Difference]:
    """Compare a run with the model before its first step on all of the user's own validation records.

    Args:
        run: a run with weights.
        device: where the models are evaluated.
        trained: these weights.

    Returns:
        Figure → trained minus untrained; empty for the embedded set, or where the data or the start are gone.
    """
    before = _measured(run, device).get("outcomes", {})
    if run.source.levels is not None or not before:
        return {}
    after = outcomes.of_run(run, trained, run.source)["records"]
    found = {name: difference(after[name], before[name]) for name in after if name in before}
    return {name: d for name, d in found.items() if d.images}


def _measured(run: RunFiles, device: torch.device | str) -> dict[str, Any]:
    """Figures of the untrained model and, for own validation records, its right answers, image by image."""
    path, key = run.path / CACHE, _key(run)
    saved = read_json(path)
    if saved.get("of") == key:
        return saved
    began = model(run) if run.config.data.val else None
    if began is None:
        return {}
    task = Task(data=run.source.data, loss=run.config.loss, limit=_limit(run))
    try:
        found = suites.evaluate(began.to(device), suites.of_run(run.source), task)
    except OSError:  # the validation shards have moved
        return {}
    measured = {"of": key, "figures": finite(values(found))}
    if task.limit is None:
        measured["outcomes"] = found["records"].outcomes
    write_json(path, measured, indent=None)
    return measured


def _limit(run: RunFiles) -> int | None:
    """Own records are all asked, as at the end of the run; of the embedded set's levels a part is enough."""
    return LIMIT if run.source.levels is not None else None


def _key(run: RunFiles) -> dict[str, Any]:
    """The settings that the figures depend on."""
    return {
        "model": asdict(run.config.model),
        "init": run.config.init,
        "seed": run.config.seed,
        "data.val": run.source.data.val,
        "limit": _limit(run),
    }
