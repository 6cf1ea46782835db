"""Evaluation suites, one file each, and the figures that they give.

Every suite offers ``evaluate(model, questions, …)``, which returns :class:`Figures`; several are asked at once by
:func:`fgclip_fast.evaluation.asking.ask`. Modules and
names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

__all__ = [
    "Figures",
    "Question",
    "asking",
    "average_precision",
    "boxes",
    "classes",
    "comparison",
    "compositional",
    "fg_ovd",
    "heatmap",
    "metrics",
    "ov_coco",
    "pairs",
    "proposals",
    "records",
    "region_retrieval",
    "retrieval",
    "segmentation",
    "text_rows",
    "views",
    "zero_shot",
]

if TYPE_CHECKING:
    from fgclip_fast.evaluation import (
        asking,
        average_precision,
        boxes,
        classes,
        comparison,
        compositional,
        fg_ovd,
        heatmap,
        metrics,
        ov_coco,
        pairs,
        proposals,
        records,
        region_retrieval,
        retrieval,
        segmentation,
        text_rows,
        views,
        zero_shot,
    )
    from fgclip_fast.evaluation.figures import Figures
    from fgclip_fast.evaluation.questions import Question


def __getattr__(name: str) -> Any:
    import importlib

    homes = {"Figures": "figures", "Question": "questions"}
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{homes.get(name, name)}")
    return getattr(module, name) if name in homes else module
