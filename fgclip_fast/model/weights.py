"""Read and write the files that hold weights; building a model of them is pretrained.py's task."""

import json
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fgclip_fast.config.model import Model
from fgclip_fast.files.whole_file import replacing
from fgclip_fast.files.whole_folder import MANIFEST, DamagedError, check_file, current, read_manifest
from fgclip_fast.model import config_json, foreign

WEIGHTS = "model.safetensors"
_CHECKPOINT = re.compile(r"(step-\d{8,})|\.(step-\d{8,})\.before")


def find(path: Path) -> Path:
    """The folder or file that holds the weights: ``path``, or of a run the model of its newest checkpoint.

    Raises:
        FileNotFoundError: there is none.
    """
    if not path.exists():
        beside = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, beside, 1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise FileNotFoundError(f"load: {path} does not exist{hint}")
    if path.is_file() or any((path / name).is_file() for name in ("config.json", foreign.CONFIG)):
        return path
    for checkpoint in [path, *reversed(_steps(path))]:
        if (checkpoint / "model" / WEIGHTS).is_file():
            return checkpoint / "model"
    if (path / "config.yaml").is_file():
        raise FileNotFoundError(f"load: the run {path} has no checkpoint yet")
    raise FileNotFoundError(f"load: {path} holds neither config.json nor a run's config.yaml and checkpoints/")


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, the oldest first; copies under other names are none."""
    return [path for path in _steps(run) if any((path / name).is_file() for name in (MANIFEST, "state.pt"))]


def read(where: Path, like: Model | None = None, trust_file: bool = False) -> tuple[Model, dict[str, Tensor]]:
    """Read the config and the fp32 weights that :func:`find` found, in the released layout or a foreign one of CLIP.

    Args:
        where: A folder or file.
        like: How to run the model; its geometry is ignored.
        trust_file: Whether a pickle or a TorchScript archive may run what it asks for.

    Raises:
        FileNotFoundError: A file of weights is missing.
        ValueError: A file cannot be read, is not as the checkpoint's manifest says, or holds no CLIP.
    """
    if (where / "config.json").is_file():
        if (where.parent / MANIFEST).is_file():
            _check_manifest(where)
        return config_json.read(where / "config.json", like), _read_state(where)
    return foreign.read(where, like, trust_file)


def write(path: Path, config: Model, state: dict[str, Tensor]) -> None:
    """Write ``config.json`` and ``model.safetensors`` of the released layout into a folder, made if missing.

    Each file is written under another name and then renamed, so that a killed process leaves no half of one.
    """
    path.mkdir(parents=True, exist_ok=True)
    write_tensors(path / WEIGHTS, state, {"format": "pt"})
    with replacing(path / "config.json") as partial:
        config_json.write(partial, config)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all, with the permissions of any other new file.

    Args:
        path: the file.
        tensors: of any device.
        metadata: words beside them.

    Raises:
        OSError: it could not be written.
    """
    on_host = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode
        try:
            save_file(on_host, partial, metadata=dict(metadata) if metadata else None)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        # safetensors makes files that nobody else may read.
        partial.chmod(mode)


def _steps(run: Path) -> list[Path]:
    """The folders of a run's steps, the oldest first."""
    folder = run / "checkpoints"
    matches = [_CHECKPOINT.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    finals = sorted({match[1] or match[2] for match in matches if match}, key=lambda name: (len(name), name))
    return [current(folder / name) for name in finals]


def _check_manifest(folder: Path) -> None:
    """Compare the files of a checkpoint's model with its manifest."""
    checkpoint = folder.parent
    try:
        for name, entry in read_manifest(checkpoint)["files"].items():
            if name.startswith(f"{folder.name}/"):
                check_file(checkpoint, name, entry)
    except DamagedError as error:
        raise DamagedError(f"load: {error}; name the checkpoint before it") from None


def _read_state(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors files, in fp32 and in memory of their own."""
    names = _files(folder)
    if missing := [name for name in names if not (folder / name).is_file()]:
        pickles = ", ".join(file.name for file in folder.glob("*.bin"))
        hint = f"; it has {pickles}: pickled weights are not read, convert them to safetensors" if pickles else ""
        raise FileNotFoundError(f"load: {folder} holds no {missing[0]}{hint}")
    state: dict[str, Tensor] = {}
    for name in names:
        try:
            state |= load_file(folder / name)
        except SafetensorError as error:
            raise ValueError(f"load: {folder / name} is cut short or not a safetensors file: {error}") from None
    kept = {name: value for name, value in state.items() if not name.endswith(".position_ids")}  # old CLIPs have them
    return {name: value.to(torch.float32, copy=True) for name, value in kept.items()}


def _files(folder: Path) -> list[str]:
    """Names of the safetensors files that hold one model, all in the folder itself."""
    if (index := folder / f"{WEIGHTS}.index.json").is_file():
        try:
            names = sorted({str(name) for name in json.loads(index.read_text())["weight_map"].values()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"load: {index} must hold a weight_map of tensors to files; {error!r}") from None
        for name in names:
            if name != Path(name).name or name == ".." or "\\" in name:
                raise ValueError(f"load: {index} must name files of its own folder, got {name!r}")
        return names
    variants = sorted(file.name for file in folder.glob("*.safetensors"))
    if (folder / WEIGHTS).is_file() or not variants:
        return [WEIGHTS]
    if len(variants) > 1:
        raise ValueError(f"load: {folder} holds no {WEIGHTS}, but {', '.join(variants)}; keep one of them there")
    return variants
