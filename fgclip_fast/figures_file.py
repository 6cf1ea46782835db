"""The files of figures: what each figure is of, what it is compared with, and the right answers behind it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgclip_fast.evaluation import comparison
from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.scenes.locate import Source
from fgclip_fast.whole_file import write_json

FIGURES = "evaluation.json"
"""File in a run's folder that holds its figures."""
OUTCOMES = "outcomes.json"
"""File in a run's folder that holds the right answers behind its figures, image by image."""
INIT = "init"
"""The word for the weights that a run started from, where figures are compared with other weights."""


def described(
    found: Mapping[str, Figures], weights: Path, step: int | None, limit: int | None
) -> dict[str, dict[str, Any]]:
    """Describe what figures are of, as ``evaluation.json`` holds them.

    Args:
        found: name → figures.
        weights: folder or file of the weights.
        step: steps of training done; None if unknown.
        limit: questions or records at most that were asked; None is all.

    Returns:
        name → figures, with weights, step, data, limit, protocol and counts under ``of``.
    """
    of = {"weights": str(weights.resolve()), "step": step, "limit": limit}
    return {
        name: {
            **figures.values,
            "of": {
                **of,
                "data": figures.data,
                "protocol": figures.protocol,
                "asked": figures.asked,
                "skipped": figures.skipped,
            },
        }
        for name, figures in found.items()
    }


def compared(
    found: Mapping[str, Figures], other: Mapping[str, Figures], weights: str, step: int | None
) -> dict[str, dict[str, Any]]:
    """Compare a model with another on the same questions, as ``evaluation.json`` holds it under ``against``.

    Args:
        found, other: name → figures of the model, and of the other.
        weights: of the other model.
        step: steps of training of the other model; None if unknown.

    Returns:
        name → weights, step and figures of the other model, differences with intervals, and the verdict.
    """
    return {
        name: {
            "weights": weights,
            "step": step,
            "figures": other[name].values,
            **comparison.described(comparison.compare(figures, other[name])),
        }
        for name, figures in found.items()
        if name in other
    }


def save_outcomes(run: Path, found: Mapping[str, Figures], source: Source, step: int) -> None:
    """Write the right answers behind figures into a run's folder, so that its report need not ask again."""
    outcomes = {name: figures.outcomes for name, figures in found.items()}
    write_json(run / OUTCOMES, {"of": outcomes_of(source, step), "outcomes": outcomes}, indent=None)


def outcomes_of(source: Source, step: int) -> dict[str, Any]:
    """The weights and the data that saved outcomes must be of to be used."""
    return {"step": step, "val": source.data.val, "levels": source.levels and source.levels.parent.name}


def values(found: Mapping[str, Figures]) -> dict[str, dict[str, Any]]:
    """The figures alone: suite → name → value."""
    return {name: figures.values for name, figures in found.items()}
