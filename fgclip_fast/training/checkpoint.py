"""Checkpoints of a run, written so that a kill at any moment loses nothing that was saved.

``RUN/checkpoints/step-00000500/`` holds ``model/`` (the released layout, so it can be loaded and shared as it is),
``state.safetensors`` and ``state.json`` (tensors and plain values to go on from); of a run with adapters also
``lora.safetensors``; and ``manifest.json``, written last: format, step, size and checksum of every file. The folder is
written under a temporary name and renamed when it is complete. Nothing in it is a pickle.

Format 1, of earlier versions, had ``state.pt`` in place of the two files and no manifest. It is still read; torch's
restricted reader runs nothing.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from fgclip_fast.files.whole_folder import MANIFEST, DamagedError, remove_folder, replacing_folder, verified
from fgclip_fast.model.weights import WEIGHTS, checkpoints, write_tensors

log = logging.getLogger("fgclip_fast")

PREFIX = "step-"
FORMAT = 2
"""Number of the layout that :func:`save` writes."""
_TENSORS, _VALUES, _OLD_STATE = "state.safetensors", "state.json", "state.pt"


def save(run: Path, step: int, save_model: Callable[[Path], None], state: Mapping[str, Any], keep: int) -> Path:
    """Write a checkpoint, then remove the oldest beyond ``keep``.

    Args:
        run: folder of the run.
        step: steps done.
        save_model: writes the model into the folder that it is given; beside it there is room for more.
        state: everything else that resuming needs; dicts of tensors and plain values, with names without "/".
        keep: number of checkpoints to keep.

    Returns:
        Folder of the checkpoint.

    Raises:
        OSError: it could not be written; nothing of it is left.
    """
    final = at(run, step)
    tensors, values = _divided(state)
    with replacing_folder(final, {"format": FORMAT, "step": step}) as partial:
        save_model(partial / "model")
        write_tensors(partial / _TENSORS, tensors)
        (partial / _VALUES).write_text(json.dumps(values, indent=1) + "\n")
    for old in every(run)[:-keep]:
        remove_folder(old)
    return final


def at(run: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return run / "checkpoints" / f"{PREFIX}{step:08d}"


def every(run: Path) -> list[Path]:
    """The complete checkpoints of a run, the oldest first; copies under other names are none."""
    return checkpoints(run)


def step_of(checkpoint: Path) -> int:
    """Steps done in a checkpoint, from its name."""
    return int(checkpoint.name.removeprefix(".").removesuffix(".before").removeprefix(PREFIX))


def newest(path: Path) -> Path | None:
    """The newest checkpoint of a run, or ``path`` itself if it is a checkpoint; None if there is none."""
    if any((path / name).is_file() for name in (MANIFEST, _OLD_STATE)):
        return path
    found = every(path)
    return found[-1] if found else None


def newest_sound(path: Path) -> Path | None:
    """As :func:`newest`, but of a run the newest that is undamaged; those passed over are named in the log.

    Raises:
        DamagedError: ``path`` is a checkpoint, and damaged; or the run has checkpoints, and all are damaged.
    """
    if (alone := newest(path)) == path or alone is None:
        if alone is not None:
            verify(alone)
        return alone
    for found in reversed(every(path)):
        try:
            verify(found)
            return found
        except DamagedError as error:
            log.warning("resume: %s; the checkpoint before it is used", error)
            last = error
    raise DamagedError(f"resume: none of the checkpoints of {path} can be used; the oldest: {last}")


def verify(checkpoint: Path) -> None:
    """Read a whole checkpoint and compare it with its manifest; of format 1, see that its files can be read.

    Raises:
        DamagedError: something is missing or was changed since it was written; the message names the file.
        ValueError: a later version wrote it.
    """
    if not (checkpoint / MANIFEST).is_file():
        _verify_format_1(checkpoint)
        return
    manifest = verified(checkpoint)
    if manifest.get("format") != FORMAT:
        raise ValueError(f"resume: {checkpoint} has format {manifest.get('format')}, and this version reads {FORMAT}")
    if checkpoint.name.startswith(PREFIX) and manifest["step"] != step_of(checkpoint):
        raise DamagedError(f"{checkpoint} holds step {manifest['step']}")


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Read the state that :func:`save` was given, and ``step``; tensors on the CPU, tuples as lists."""
    if not (checkpoint / MANIFEST).is_file():
        return torch.load(checkpoint / _OLD_STATE, map_location="cpu", weights_only=True)
    state = json.loads((checkpoint / _VALUES).read_text(encoding="utf-8"))
    for name, tensor in load_file(checkpoint / _TENSORS).items():
        *folders, last = name.split("/")
        at = state
        for folder in folders:
            at = at.setdefault(folder, {})
        at[last] = tensor
    return {"step": json.loads((checkpoint / MANIFEST).read_bytes())["step"], **state}


def set_aside(run: Path, after: int) -> None:
    """Rename the checkpoints of a run that come after a step, since it now goes another way from there."""
    for path in every(run):
        if step_of(path) > after:
            aside = path.with_name(f"aside-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(path, aside)
            log.warning("resume: %s is of steps that the run will do anew; it is now called %s", path, aside.name)


def _divided(state: Mapping[str, Any], path: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors in nested dicts, by the names on the way to each joined by "/"; and the dicts without them."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            tensors[f"{path}{name}"] = value
        elif isinstance(value, Mapping):
            below, values[name] = _divided(value, f"{path}{name}/")
            tensors |= below
        else:
            values[name] = value
    return tensors, values


def _verify_format_1(checkpoint: Path) -> None:
    """Read what can be read of a checkpoint without checksums."""
    state, weights = checkpoint / _OLD_STATE, checkpoint / "model" / WEIGHTS
    try:
        torch.load(state, map_location="cpu", weights_only=True)["step"]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, UnpicklingError) as error:
        raise DamagedError(f"{state} cannot be read: {_first_line(error)}") from None
    try:
        with safe_open(weights, "pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"{weights} cannot be read: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
