"""Weights in OpenAI's and open_clip's layout, which share their names, as the released layout has them."""

import logging
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy
import torch
from safetensors.torch import load_file
from torch import Tensor

from fgclip_fast.config.model import Model, Text, Vision
from fgclip_fast.model import open_clip_config
from fgclip_fast.model.open_clip_config import HEAD, Untold

CONFIG, WEIGHTS = open_clip_config.NAME, "open_clip_model.safetensors"

log = logging.getLogger("fgclip_fast")

NAMES = {
    "logit_scale": "logit_scale",
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "positional_embedding_res": "text_model.embeddings.position_embedding_res.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
}
PREFIXES = {
    "ln_final.": "text_model.final_layer_norm.",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
}
IN_BLOCK = {
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".attn.": ".self_attn.",
    ".c_fc.": ".fc1.",
    ".c_proj.": ".fc2.",
}
TRANSPOSED = ("text_projection", "visual.proj")
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


def read(path: Path, like: Model | None = None, trust_file: bool = False) -> tuple[Model, dict[str, Tensor]]:
    """Geometry and fp32 weights of a CLIP in OpenAI's or open_clip's layout.

    The activation, the heads and the epsilon are not in the weights. OpenAI's files are known to have its own; else
    they come from ``open_clip_config.json`` beside the file, or from ``like``.

    Args:
        path: a ``.safetensors`` or ``.pt`` file, or a folder with ``open_clip_config.json``.
        like: how to run the model.
        trust_file: whether a pickle or a TorchScript archive may run what it asks for.

    Raises:
        ValueError: not such a CLIP, or nothing tells its activation.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"load: {path} holds no {WEIGHTS}")
    state = _bare(_tensors(file, trust_file))
    _check(file, state)
    config = file.parent / CONFIG
    told = open_clip_config.read(config, like) if config.is_file() else _told_by(file, state, like)
    return _geometry(state, told), translate(state)


def _check(file: Path, state: dict[str, Tensor]) -> None:
    if "visual.conv1.weight" not in state or "positional_embedding" not in state:
        raise ValueError(f"load: {file} is not an OpenAI or open_clip checkpoint; its tensors are {[*state][:3]} …")
    needed = (
        "visual.transformer.resblocks.0.mlp.c_fc.bias",
        "transformer.resblocks.0.mlp.c_fc.bias",
        "text_projection",
    )
    for name in needed:
        if name not in state:
            kind = "a ResNet" if "visual.layer1.0.conv1.weight" in state else "another architecture"
            raise ValueError(f"load: {file} lacks {name}: it is {kind}, not a CLIP of two transformers")


def _told_by(file: Path, state: dict[str, Tensor], like: Model | None) -> Untold:
    if "input_resolution" in state:  # OpenAI's files alone have it
        return Untold(replace(like or Model(), activation="quick_gelu"), HEAD, None)
    if like is None:
        raise ValueError(
            f"load: {file} does not tell its activation, nor how wide its attention heads are; put its {CONFIG} beside "
            "it, or pass like=Model(activation=…): gelu for most of open_clip's weights, quick_gelu for OpenAI's"
        )
    log.warning(
        "load: %s tells neither its activation nor its heads: %s is taken from the config, and heads of %d; put its %s "
        "beside it if that is wrong", file, like.activation, HEAD, CONFIG,
    )  # fmt: skip
    return Untold(like, HEAD, None)


def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors to the released names, in fp32. Unknown names are kept so that the loader can report them."""
    translated: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in NO_WEIGHTS:
            continue
        value = value.to(torch.float32, copy=True)
        if ".in_proj_" in name:  # queries, keys and values, one below the other
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                translated[_name(name.replace("in_proj_", f"{part}_proj."))] = rows.clone()
        else:
            translated[_name(name)] = value.T.contiguous() if name in TRANSPOSED else value
    return translated


def _name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    for theirs, ours in PREFIXES.items():
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
    for theirs, ours in IN_BLOCK.items():
        name = name.replace(theirs, ours)
    return name


def _bare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefix of open_clip's newer class, and any that a wrapper (DDP, Lightning, compile) put before all."""
    first = next((name for name in state if name.endswith("visual.conv1.weight")), "")
    wrapper = first.removesuffix("visual.conv1.weight")
    names = {name: name.removeprefix(wrapper).removeprefix("text.") for name in state if name.startswith(wrapper)}
    return {bare: state[name] for name, bare in names.items()}


def _tensors(file: Path, trust_file: bool) -> dict[str, Tensor]:
    try:
        return load_file(file) if file.suffix == ".safetensors" else _unpickled(file, trust_file)
    except OSError:
        raise
    except Exception as error:  # of a file that holds something else the readers raise nearly anything
        why = f"{type(error).__name__} {str(error).strip().partition(chr(10))[0]}".rstrip()
        hint = _TRUST if not trust_file and isinstance(error, RuntimeError | UnpicklingError) else ""
        raise ValueError(f"load: {file} holds no weights that can be read: {why}{hint}") from error


_TRUST = "; a pickle or TorchScript archive from a source that you trust is read with trust_file=True (--trust-file)"


def _unpickled(file: Path, trust_file: bool) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather not read TorchScript any more
        try:  # a checkpoint of open_clip's, with more beside the weights
            with torch.serialization.safe_globals(_NUMPY):
                stored = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, UnpicklingError):
            if not trust_file:
                raise
            try:
                stored = torch.load(file, map_location="cpu", weights_only=False)
            except RuntimeError:
                stored = torch.jit.load(file, map_location="cpu")
        if isinstance(stored, torch.nn.Module):  # OpenAI's files are TorchScript
            return stored.state_dict()
        return _only_tensors(stored.get("state_dict", stored).items())


# Learning rates and the like are NumPy scalars in some checkpoints; these classes hold numbers and run nothing.
_NUMPY: list[Any] = [
    numpy.float64().__reduce__()[0],
    numpy.dtype,
    *(type(numpy.dtype(kind)) for kind in "?bBhHiIlLqQefd"),
]


def _only_tensors(items: Iterable[tuple[str, object]]) -> dict[str, Tensor]:
    return {name: value for name, value in items if isinstance(value, Tensor)}


def _geometry(state: dict[str, Tensor], told: Untold) -> Model:
    width, _, patch, _ = state["visual.conv1.weight"].shape
    vocabulary, text_width = state["token_embedding.weight"].shape
    side = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    vision = Vision(
        image_size=side * patch,
        patch_size=patch,
        width=width,
        layers=_layers(state, "visual.transformer."),
        heads=width // told.vision_head,
        mlp=len(state["visual.transformer.resblocks.0.mlp.c_fc.bias"]),
    )
    text = Text(
        width=text_width,
        layers=_layers(state, "transformer."),
        heads=told.text_heads or text_width // HEAD,
        mlp=len(state["transformer.resblocks.0.mlp.c_fc.bias"]),
        vocabulary=vocabulary,
    )
    return replace(told.base, vision=vision, text=text, projection=state["text_projection"].shape[1])


def _layers(state: dict[str, Tensor], tower: str) -> int:
    return sum(name.startswith(tower) and name.endswith(".ln_1.bias") for name in state)
