"""Checkpoints of a run, written so that a kill at any moment loses nothing that was saved.

``RUN/checkpoints/step-00000500/`` holds ``model/`` (the released layout, so it can be loaded and shared as it is) and
``state.pt`` (optimizer, counts); of a run with adapters also ``lora.safetensors``. It is written under a temporary name
and renamed when it is complete.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PREFIX = "step-"


def save(run: Path, step: int, save_model: Callable[[Path], None], state: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint, then remove the oldest beyond ``keep``.

    Args:
        run: folder of the run.
        step: steps done.
        save_model: writes the model into the folder that it is given.
        state: everything else that resuming needs; tensors and plain values.
        keep: number of checkpoints to keep.

    Returns:
        Folder of the checkpoint.
    """
    final = at(run, step)
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_model(partial / "model")
    torch.save({"step": step, **state}, partial / "state.pt")
    for file in partial.rglob("*"):
        _flush(file)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _flush(final.parent)
    for old in every(run)[:-keep]:
        shutil.rmtree(old)
    return final


def at(run: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return run / "checkpoints" / f"{PREFIX}{step:08d}"


def every(run: Path) -> list[Path]:
    """The complete checkpoints of a run, the oldest first."""
    return sorted(p for p in (run / "checkpoints").glob(f"{PREFIX}*") if (p / "state.pt").exists())


def step_of(checkpoint: Path) -> int:
    """Steps done in a checkpoint, from its name."""
    return int(checkpoint.name.removeprefix(PREFIX))


def newest(path: Path) -> Path | None:
    """The newest checkpoint of a run, or ``path`` itself if it is a checkpoint; None if there is none."""
    if (path / "state.pt").exists():
        return path
    found = every(path)
    return found[-1] if found else None


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Read the state that :func:`save` was given, and ``step``; tensors on the CPU."""
    return torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)


def _flush(path: Path) -> None:
    """Write the bytes of a file, or the names in a folder, to the disk before the next rename is written."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
