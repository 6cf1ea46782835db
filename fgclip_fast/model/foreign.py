"""Weights in OpenAI's and open_clip's layout, which share their names, as the released layout has them."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from fgclip_fast.config import Model, Text, Vision

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
HEAD = 64
"""Width of an attention head wherever nothing says otherwise, as in every CLIP of OpenAI's."""

NAMES = {
    "logit_scale": "logit_scale",
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
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


def read(path: Path, like: Model | None = None) -> tuple[Model, dict[str, Tensor]]:
    """Geometry and fp32 weights of a CLIP in OpenAI's or open_clip's layout.

    Args:
        path: a ``.safetensors`` or ``.pt`` file, or a folder with ``open_clip_config.json``.
        like: how to run the model; and its activation, where only a file is given: that is not in the weights.

    Raises:
        ValueError: not such a CLIP.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"load: {path} holds no {WEIGHTS}")
    state = {_bare(name): value for name, value in _tensors(file).items()}
    if "visual.conv1.weight" not in state or "positional_embedding" not in state:
        raise ValueError(f"load: {file} is not an OpenAI or open_clip checkpoint; its tensors are {[*state][:3]} …")
    base, head = like or Model(), HEAD
    if path.is_dir():
        stored = json.loads((path / CONFIG).read_text())["model_cfg"]
        base = replace(base, activation="quick_gelu" if stored.get("quick_gelu") else "gelu")
        head = stored["vision_cfg"].get("head_width", HEAD)
    return _geometry(state, base, head), translate(state)


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


def _bare(name: str) -> str:
    """Strip the prefixes that DDP and open_clip's newer class put before a name."""
    return name.removeprefix("module.").removeprefix("text.")


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file) if file.suffix == ".safetensors" else _unpickled(file)
    except OSError:
        raise
    except Exception as error:  # of a file that holds something else the readers raise nearly anything
        why = f"{type(error).__name__} {str(error).strip().partition(chr(10))[0]}".rstrip()
        raise ValueError(f"load: {file} holds no weights that can be read: {why}") from error


def _unpickled(file: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather not read TorchScript any more
        try:  # a checkpoint of open_clip's, with more beside the weights
            stored = torch.load(file, map_location="cpu", weights_only=True)
            return stored.get("state_dict", stored)
        except RuntimeError:  # OpenAI's files are TorchScript
            return torch.jit.load(file, map_location="cpu").state_dict()


def _geometry(state: dict[str, Tensor], base: Model, head: int) -> Model:
    width, _, patch, _ = state["visual.conv1.weight"].shape
    vocabulary, text_width = state["token_embedding.weight"].shape
    side = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    vision = Vision(
        image_size=side * patch,
        patch_size=patch,
        width=width,
        layers=_layers(state, "visual.transformer."),
        heads=width // head,
        mlp=len(state["visual.transformer.resblocks.0.mlp.c_fc.bias"]),
    )
    text = Text(
        width=text_width,
        layers=_layers(state, "transformer."),
        heads=text_width // HEAD,
        mlp=len(state["transformer.resblocks.0.mlp.c_fc.bias"]),
        vocabulary=vocabulary,
    )
    return replace(base, vision=vision, text=text, projection=state["text_projection"].shape[1])


def _layers(state: dict[str, Tensor], tower: str) -> int:
    return sum(name.startswith(tower) and name.endswith(".ln_1.bias") for name in state)
