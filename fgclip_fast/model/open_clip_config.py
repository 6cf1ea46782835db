"""``open_clip_config.json``: the parts of a model that its weights do not tell."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fgclip_fast.config.model import Model
from fgclip_fast.ops.activation_linear import Kind
from fgclip_fast.ops.tree import SHORT_LENGTH

NAME = "open_clip_config.json"
HEAD = 64
"""Width of an attention head in OpenAI's CLIPs, and of the vision tower wherever a config does not say otherwise."""
# Fields that change nothing here, or that the weights tell.
_FREE = {
    *("image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "heads", "vocab_size"),
    *("patch_dropout", "pos_embed_type", "output_tokens", "pad_id", "eos_id", "attn_pooler_queries"),
    *("attn_pooler_heads", "tokenizer_kwargs", "hf_model_pretrained", "timm_model_pretrained", "norm_kwargs"),
}
# Fields that change the arithmetic: the one value that is CLIP's.
_VISION = {"pool_type": "tok", "attentional_pool": False, "global_average_pool": False, "no_ln_pre": False}
_TEXT = {"pool_type": "argmax", "context_length": SHORT_LENGTH, "no_causal_mask": False, "proj_type": "linear"}


class Untold(NamedTuple):
    """Settings that the weights of a CLIP do not tell."""

    base: Model
    """With the activation and the epsilon of LayerNorm."""
    vision_head: int
    """Width of an attention head of the vision tower."""
    text_heads: int | None
    """None: the heads are :data:`HEAD` wide."""


def read(path: Path, like: Model | None = None) -> Untold:
    """Read what the weights do not tell.

    Args:
        path: the file.
        like: how to run the model.

    Raises:
        ValueError: not JSON, or not a CLIP that this package can be; the message names the field.
    """
    try:
        stored = json.loads(path.read_text())["model_cfg"]
        vision, text = stored["vision_cfg"], stored["text_cfg"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"load: {path} must hold model_cfg with vision_cfg and text_cfg; {error!r}") from None
    for name, part, own in (("vision_cfg", vision, _VISION), ("text_cfg", text, _TEXT)):
        _check(path, name, part, own)
    if not isinstance(vision.get("layers", 12), int):
        raise ValueError(f"load: {path}: vision_cfg.layers must be one number, got {vision['layers']}: a ResNet")
    epsilons = [(part.get("norm_kwargs") or {}).get("eps", 1e-5) for part in (vision, text)]
    if epsilons[0] != epsilons[1]:
        raise ValueError(f"load: {path}: norm_kwargs.eps must be the same in both towers, got {epsilons}")
    activation: Kind = "quick_gelu" if stored.get("quick_gelu") else "gelu"
    base = replace(like or Model(), activation=activation, layer_norm_eps=epsilons[0])
    return Untold(base, vision.get("head_width", HEAD), text.get("heads", 8))


def _check(path: Path, name: str, part: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse what is not CLIP's; a field that is off (None, False, empty) is."""
    for field, value in part.items():
        off = value in (None, False, {}, [])
        if field == "norm_kwargs" and not off and [*value] != ["eps"]:
            raise ValueError(f"load: {path}: {name}.norm_kwargs may hold eps alone, got {value}")
        if field in _FREE or off or (field in own and value == own[field]):
            continue
        wanted = repr(own[field]) if field in own else "left out"
        raise ValueError(f"load: {path}: {name}.{field} must be {wanted}, got {value!r}: not a CLIP of this package")
