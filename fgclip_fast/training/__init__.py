"""The parts of the training loop in ``fgclip_fast/train.py``, for that loop and for your own.

Modules are imported when they are first asked for. None of them reads data, so each works with batches from elsewhere.
"""

from typing import TYPE_CHECKING, Any

__all__ = [
    "average",
    "best",
    "checkpoint",
    "distributed",
    "divergence",
    "freezing",
    "grad_cache",
    "host_copy",
    "interruption",
    "log_writer",
    "lora",
    "monitor",
    "objective",
    "optim",
    "provenance",
    "saver",
    "timing",
]

if TYPE_CHECKING:
    from fgclip_fast.training import (
        average,
        best,
        checkpoint,
        distributed,
        divergence,
        freezing,
        grad_cache,
        host_copy,
        interruption,
        log_writer,
        lora,
        monitor,
        objective,
        optim,
        provenance,
        saver,
        timing,
    )


def __getattr__(name: str) -> Any:
    import importlib

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
