"""``config.json`` of the released layout, which is Hugging Face's of CLIP, to and from ``config.Model``."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fgclip_fast.config.model import Model, Text, Vision
from fgclip_fast.ops.tree import SHORT_LENGTH

LOGIT_SCALE = 2.6592
"""ln(1 / 0.07), the initial value of the three logit scales."""

LARGEST = {"num_hidden_layers": 1000, "image_size": 2**14, "hidden_size": 2**16, "intermediate_size": 2**18}
"""Limits of sizes; any other is at most 2**20."""
REMOTE_CODE = {
    "AutoConfig": "qihoo360/fg-clip-base--modeling_fgclip.FGCLIPConfig",
    "AutoModelForCausalLM": "qihoo360/fg-clip-base--modeling_fgclip.FGCLIPModel",
}
"""Where transformers finds the released code; it is asked for by ``trust_remote_code=True`` alone. The model refuses
transformers' own config, so that is named, too."""

# Our field -> its name there, and what it is where the file leaves it out (not our own defaults).
VISION = {
    "image_size": ("image_size", 224),
    "patch_size": ("patch_size", 32),
    "width": ("hidden_size", 768),
    "layers": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
    "mlp": ("intermediate_size", 3072),
}
TEXT = {
    "width": ("hidden_size", 512),
    "layers": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 8),
    "mlp": ("intermediate_size", 2048),
    "vocabulary": ("vocab_size", 49408),
}
BOTH = {"activation": ("hidden_act", "quick_gelu"), "layer_norm_eps": ("layer_norm_eps", 1e-5)}


def read(path: Path, like: Model | None = None) -> Model:
    """The geometry of a ``config.json``; how to run it (packing, compile, …) is taken from ``like``.

    Raises:
        ValueError: not JSON, or not a CLIP that this package can be.
    """
    try:
        stored = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"load: {path} is not JSON: {error}") from None
    return geometry(stored, path, like)


def geometry(stored: dict[str, Any], path: Path | str, like: Model | None = None) -> Model:
    """The geometry of what a ``config.json`` holds; ``path`` names it in messages, ``like`` is that of :func:`read`.

    Raises:
        ValueError: not a CLIP that this package can be.
    """
    _check_kind(path, stored)
    vision, text = stored.get("vision_config"), stored.get("text_config")
    if not isinstance(vision, dict) or not isinstance(text, dict):
        raise ValueError(f"load: {path} must hold vision_config and text_config, as a CLIP's does; it has {[*stored]}")
    if text.get("max_position_embeddings", SHORT_LENGTH) != SHORT_LENGTH:
        got = text["max_position_embeddings"]
        raise ValueError(f"load: {path}: text_config.max_position_embeddings must be {SHORT_LENGTH}, got {got}")
    return replace(
        like or Model(),
        vision=Vision(**_fields(vision, VISION)),
        text=Text(**_fields(text, TEXT)),
        projection=_number("projection_dim", stored.get("projection_dim", 512)),
        **_shared(path, vision, text),
    )


def write(path: Path, config: Model) -> None:
    """Write a ``config.json`` that :func:`read` and Hugging Face's CLIPConfig read."""
    shared = {there: getattr(config, ours) for ours, (there, _) in BOTH.items()}
    vision = {there: getattr(config.vision, ours) for ours, (there, _) in VISION.items()}
    text = {there: getattr(config.text, ours) for ours, (there, _) in TEXT.items()}
    stored = {
        "model_type": "clip",
        "architectures": ["FGCLIPModel"],
        "auto_map": REMOTE_CODE,
        "projection_dim": config.projection,
        "logit_scale_init_value": LOGIT_SCALE,
        "vision_config": {**vision, **shared, "projection_dim": config.projection},
        "text_config": {
            **text,
            **shared,
            "projection_dim": config.projection,
            "max_position_embeddings": SHORT_LENGTH,
        },
    }
    path.write_text(json.dumps(stored, indent=2) + "\n")


def _check_kind(path: Path | str, stored: dict[str, Any]) -> None:
    """Refuse models whose tensors have CLIP's names and whose texts have another tokenizer."""
    kind = str(stored.get("model_type", "clip"))
    if "fgclip2" in kind.replace("_", "").replace("-", "").lower():
        raise ValueError(f"load: {path} is an FG-CLIP 2, which this version does not read; FG-CLIP is meant")
    if kind not in ("clip", "fgclip", "fg-clip", "longclip"):
        raise ValueError(f"load: {path}: model_type must be clip, got {kind}: another tokenizer or architecture")


def _fields(part: dict[str, Any], names: dict[str, tuple[str, int]]) -> dict[str, Any]:
    return {ours: _number(there, part.get(there, default)) for ours, (there, default) in names.items()}


def _number(name: str, value: Any) -> Any:
    """An integer; a pair of equal sides is one."""
    if isinstance(value, list) and len({*map(str, value)}) == 1:
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"load: config.json: {name} must be an integer, got {value!r}")
    most = LARGEST.get(name, 2**20)
    if not 0 < value <= most:  # before a model of that size is built
        raise ValueError(f"load: config.json: {name} must be from 1 to {most}, got {value}")
    return value


def _shared(path: Path | str, vision: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    """The fields that the file has for each tower and our config once."""
    found = {}
    for ours, (there, default) in BOTH.items():
        pair = vision.get(there, default), text.get(there, default)
        if pair[0] != pair[1]:
            raise ValueError(f"load: {path}: {there} must be the same in both towers, got {pair[0]} and {pair[1]}")
        found[ours] = pair[0]
    if found["activation"] not in ("quick_gelu", "gelu"):
        raise ValueError(f"load: {path}: hidden_act must be quick_gelu or gelu, got {found['activation']}")
    return found
