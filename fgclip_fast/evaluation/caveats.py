"""Ways in which a model is asked otherwise than it was trained, by its weights and by the files beside them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fgclip_fast.inputs.image import MEAN, STD
from fgclip_fast.model import open_clip_config
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.positions import stretch
from fgclip_fast.ops.tree import LONG_LENGTH, SHORT_LENGTH

_LARGEST = 10**6  # transformers writes 1e30 where a tokenizer has no limit


def dense_untrained(model: FGCLIP) -> bool:
    """True for a CLIP without a dense path of its own: both text projections are the same."""
    return torch.equal(model.text_projection.weight, model.text_filip_projection.weight)


def long_untrained(model: FGCLIP) -> bool:
    """True for a CLIP of 77 tokens, whose table of positions was stretched to 248 when it was loaded."""
    tables = model.text_model.embeddings
    long, short = tables.position_embedding_res.weight, tables.position_embedding.weight
    return torch.equal(long, stretch(short).to(long.dtype))


def unlike_files(where: Path, model: FGCLIP) -> list[str]:
    """Compare how a model is asked with what the files beside its weights say.

    Args:
        where: folder or file of the weights.
        model: the model that was loaded from there.

    Returns:
        A sentence for each difference of resolution, normalisation, text length, tokenizer or activation.
    """
    folder = where if where.is_dir() else where.parent
    found = [*_images(folder, model), *_texts(folder, model), *_activation(folder, model)]
    return list(dict.fromkeys(found))


def unlike(model: FGCLIP, other: FGCLIP) -> list[str]:
    """Compare how two models are asked: a sentence for each difference of resolution, tokenizer or activation."""
    pairs = {
        "images of {} pixels": (model.config.vision.image_size, other.config.vision.image_size),
        "activation {}": (model.config.activation, other.config.activation),
        "merges of {}": (model.tokenizer.merges or "open_clip", other.tokenizer.merges or "open_clip"),
    }
    if model.tokenizer.pairs() == other.tokenizer.pairs():
        pairs.pop("merges of {}")
    return [f"{what.format(one)} against {what.format(two)}" for what, (one, two) in pairs.items() if one != two]


def _images(folder: Path, model: FGCLIP) -> Iterator[str]:
    processor = _json(folder / "preprocessor_config.json")
    theirs = _json(folder / open_clip_config.NAME).get("preprocess_cfg") or {}
    cropped = processor.get("do_center_crop") and processor.get("crop_size")
    size = _side(cropped or processor.get("size") or theirs.get("size"))
    if size and size != model.config.vision.image_size:
        yield f"images of {size} pixels by its processor, {model.config.vision.image_size} here"
    for name, ours, short in (("image_mean", MEAN, "mean"), ("image_std", STD, "std")):
        stated = processor.get(name) or theirs.get(short)
        if isinstance(stated, list) and not _near(stated, ours):
            yield f"pixels normalised by the {short} {stated}, {[*ours]} here"
    if processor.get("do_normalize") is False:
        yield "pixels that are not normalised, normalised here"


def _texts(folder: Path, model: FGCLIP) -> Iterator[str]:
    length = _json(folder / "tokenizer_config.json").get("model_max_length")
    if isinstance(length, int | float) and length < _LARGEST and length not in (SHORT_LENGTH, LONG_LENGTH):
        yield f"texts of {length:g} tokens by its tokenizer, {SHORT_LENGTH} and {LONG_LENGTH} here"
    merges = (_json(folder / "tokenizer.json").get("model") or {}).get("merges")
    if isinstance(merges, list):
        stated = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in merges]
        ours = model.tokenizer.pairs()
        if stated != ours[: len(stated)] or len(stated) < len(ours):
            yield f"another tokenizer: the merges of tokenizer.json are not those of {_source(model)}"


def _activation(folder: Path, model: FGCLIP) -> Iterator[str]:
    stated = {
        str(part["hidden_act"])
        for name in ("vision_config", "text_config")
        if isinstance(part := _json(folder / "config.json").get(name), dict) and "hidden_act" in part
    }
    told = _json(folder / open_clip_config.NAME).get("model_cfg")
    if isinstance(told, dict):
        stated.add("quick_gelu" if told.get("quick_gelu") else "gelu")
    for name in sorted(stated - {model.config.activation}):
        yield f"activation {name} by one of its configs, {model.config.activation} here"


def _source(model: FGCLIP) -> str:
    return "open_clip, which are used" if model.tokenizer.merges is None else "merges.txt, which are used"


def _near(stated: list[Any], ours: tuple[float, ...]) -> bool:
    """True for the same numbers to four digits."""
    numbers = len(stated) == len(ours) and all(isinstance(one, int | float) for one in stated)
    return numbers and all(abs(a - b) < 1e-4 for a, b in zip(stated, ours, strict=True))


def _side(size: Any) -> int | None:
    """The side of a square, as processors write it: a number, a pair, or ``height`` or ``shortest_edge``."""
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    if isinstance(size, list) and size:
        size = size[0]
    return size if isinstance(size, int) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
