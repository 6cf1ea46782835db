"""The files of figures: what each figure is of, what it is compared with, and the right answers behind it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgclip_fast.evaluation import comparison
from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.files.whole_file import write_json
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.fingerprint import weights_hash
from fgclip_fast.ops.tree import LONG_LENGTH, SHORT_LENGTH
from fgclip_fast.scenes.locate import Source
from fgclip_fast.training.provenance import versions

FIGURES = "evaluation.json"
"""File in a run's folder that holds its figures."""
OUTCOMES = "outcomes.json"
"""File in a run's folder that holds the right answers behind its figures, image by image."""
CURVE = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of a model's weights on the way from another's, where figures of weights between the two are asked for."""
INIT = "init"
"""The word for the weights that a run started from, where figures are compared with other weights."""


def described(
    found: Mapping[str, Figures],
    weights: Path,
    step: int | None,
    limit: int | None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Describe what figures are of, as ``evaluation.json`` holds them.

    Args:
        found: name → figures.
        weights: folder or file of the weights.
        step: steps of training done; None if unknown.
        limit: questions or records at most that were asked; None is all.
        settings: :func:`settings` of the model, kept under the same name; None leaves them out.

    Returns:
        name → figures, with weights, step, data, limit, protocol and counts under ``of``.
    """
    of: dict[str, Any] = {"weights": str(weights.resolve()), "step": step, "limit": limit}
    if settings is not None:
        of["settings"] = dict(settings)
    return {
        name: {
            **{key: _told(key, value) for key, value in figures.values.items()},
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


def _told(name: str, value: Any) -> Any:
    """Losses to four digits: beyond the sixth they depend on how many images went through the model together."""
    return round(value, 4) if name.startswith("loss_") and isinstance(value, float) else value


def settings(model: FGCLIP) -> dict[str, Any]:
    """Describe how a model answers: its weights by a hash, its inputs, and the packages that compute."""
    merges = model.tokenizer.pairs()
    return {
        "model_sha256": weights_hash(model),
        "image_size": model.config.vision.image_size,
        "text_length": {"short": SHORT_LENGTH, "long": LONG_LENGTH},
        "activation": model.config.activation,
        "merges_sha256": hashlib.sha256("\n".join(map(" ".join, merges)).encode()).hexdigest()[:16],
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "device": model.device.type,
        "versions": versions(),
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


def curves(found: Mapping[float, Mapping[str, Figures]]) -> dict[str, dict[str, Any]]:
    """Describe figures of weights between two models, as ``evaluation.json`` holds them beside the comparison.

    Args:
        found: share of the model's weights → name → figures.

    Returns:
        name → ``{"curve": {"shares": […], "figures": {figure: […]}}}``, with the figures that are shares of answers.
    """
    shares = sorted(found)
    return {
        name: {
            "curve": {
                "shares": shares,
                "figures": {
                    figure: [found[share][name].values.get(figure) for share in shares] for figure in figures.outcomes
                },
            }
        }
        for name, figures in found[shares[-1]].items()
        if all(name in found[share] for share in shares)
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
