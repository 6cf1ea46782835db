"""Reads and writes weights: the released layout, foreign layouts of CLIP, and runs of this package."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fgclip_fast.config import Model
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.model import config_json, key_maps
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.init import stretch

WEIGHTS = "model.safetensors"
TABLES = "text_model.embeddings.position_embedding"
COPIES = {  # what a CLIP has not, and of which of its tensors it is a copy at first
    "text_filip_projection.weight": "text_projection.weight",
    "logit_scale_finegraind": "logit_scale",
    "logit_scale_hardneg": "logit_scale",
}


def load(path: str | Path, like: Model | None = None) -> FGCLIP:
    """A model with the weights of a folder, on the CPU, in fp32.

    A CLIP becomes an FG-CLIP as in the released training code: its position table is stretched to 248 rows for the
    long path, and its text projection and logit scale are copied to the long path's and the finer terms'. Whether it
    is one is decided by the weights: an FG-CLIP has tables of its own for the long path.

    Args:
        path: a folder in the released layout (``config.json`` and ``model.safetensors``, one file or several), a
            CLIP in Hugging Face's, or a run or checkpoint of this package (of a run, the newest checkpoint); or a CLIP
            of OpenAI's (a ``.pt`` file) or open_clip's (a file, or a folder with ``open_clip_config.json``). A
            ``merges.txt`` beside the weights rules the tokenizer.
        like: how to run the model: packing, attention, residual, compile, activation_checkpointing; its geometry is
            ignored.

    Raises:
        FileNotFoundError: the folder, its config, its weights or its checkpoint are not there.
        ValueError: weights are missing, unknown or of another shape; the message names the first.
    """
    where = find(Path(path))
    if (where / "config.json").is_file():
        config, state = config_json.read(where / "config.json", like), _read_state(where)
    else:
        config, state = key_maps.read(where, like)
    with torch.device("meta"):
        model = FGCLIP(config)
    state = complete(state)
    _check(where, state, model.state_dict())
    model.load_state_dict(state, assign=True)
    if (where / "merges.txt").is_file():
        model.tokenizer = Tokenizer(where / "merges.txt")
    return model


def save(model: FGCLIP, path: str | Path) -> None:
    """Writes ``config.json`` and ``model.safetensors`` of the released layout, in fp32, into a folder.

    Each file is written under another name and then renamed, so that a killed process leaves no half of one.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    partial = folder / f".{WEIGHTS}.partial"
    save_file(state, partial, metadata={"format": "pt"})
    os.replace(partial, folder / WEIGHTS)
    config_json.write(partial.with_name(".config.partial"), model.config)
    os.replace(partial.with_name(".config.partial"), folder / "config.json")


def find(path: Path) -> Path:
    """The folder or file that holds the weights: ``path``, or of a run the model of its newest checkpoint.

    Raises:
        FileNotFoundError: there is none.
    """
    if not path.exists():
        raise FileNotFoundError(f"load: {path} does not exist; weights on a hub must be downloaded first")
    if path.is_file() or any((path / name).is_file() for name in ("config.json", key_maps.CONFIG)):
        return path
    for checkpoint in [path, *sorted(path.glob("checkpoints/step-*"), reverse=True)]:
        if (checkpoint / "model" / WEIGHTS).is_file():
            return checkpoint / "model"
    if (path / "config.yaml").is_file():
        raise FileNotFoundError(f"load: the run {path} has no checkpoint yet")
    raise FileNotFoundError(f"load: {path} holds neither config.json nor a run's config.yaml and checkpoints/")


def complete(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an FG-CLIP from those of a CLIP (arXiv 2505.05071, stage 1); those of an FG-CLIP as they are."""
    if f"{TABLES}_res.weight" in state or f"{TABLES}.weight" not in state:
        return state
    table = state[f"{TABLES}.weight"]
    added = {f"{TABLES}_{name}.weight": stretch(table) for name in ("ori", "res") if len(table) == 77}
    copies = {target: state[source].clone() for target, source in COPIES.items() if source in state}
    return {**state, **added, **copies}


def _read_state(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors files, in fp32 and in memory of their own."""
    index = folder / f"{WEIGHTS}.index.json"
    names = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.is_file() else [WEIGHTS]
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


def _check(folder: Path, state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    missing, unknown = [n for n in expected if n not in state], [n for n in state if n not in expected]
    if missing:
        raise ValueError(f"load: {folder} lacks {len(missing)} of {len(expected)} tensors, the first: {missing[0]}")
    if unknown:
        raise ValueError(f"load: {folder} has {len(unknown)} tensors that are not FG-CLIP's, the first: {unknown[0]}")
    for name, value in expected.items():
        if state[name].shape != value.shape:
            raise ValueError(f"load: {folder}: {name} is {list(state[name].shape)}, must be {list(value.shape)}")
