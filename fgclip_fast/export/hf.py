"""Folders that transformers loads without remote code: ``CLIPModel``, and ``CLIPVisionModel`` alone."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip_fast.export.probe import TEXTS, compare, compare_short_path, pixels
from fgclip_fast.files.whole_file import write_whole
from fgclip_fast.model.fgclip import FGCLIP


@torch.no_grad()
def write_hf(model: FGCLIP, folder: Path) -> float:
    """Write the whole model as transformers reads it, load it there, and compare.

    ``CLIPModel`` takes the image tower and the short path; ``AutoModel`` all, once
    ``fgclip_fast.integrations.transformers`` is imported.

    Returns:
        The largest difference of an embedding of length 1.

    Raises:
        ValueError: transformers computes something else.
    """
    model.save(folder)
    _configure(folder, dict)
    from transformers import AutoModel, AutoTokenizer, CLIPModel

    from fgclip_fast.integrations import transformers as registered

    with _quiet():  # CLIPModel lists the tensors that it has no use for
        peer, whole = CLIPModel.from_pretrained(folder).eval(), AutoModel.from_pretrained(folder)
    if not isinstance(whole, registered.FGCLIPModel):
        raise ValueError(f"export: AutoModel must load {folder} as an FGCLIPModel, got {type(whole).__name__}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(TEXTS, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
    image = peer.visual_projection(peer.vision_model(pixel_values=pixels(model)).pooler_output)
    # Masked padding could not change a feature: attention is causal.
    text = peer.text_projection(peer.text_model(input_ids=tokens).pooler_output)
    short = compare_short_path("transformers", model, F.normalize(image, dim=-1), F.normalize(text, dim=-1))
    return max(short, _compare_whole(model, whole, tokens))


def _compare_whole(model: FGCLIP, whole: Any, ids: Tensor) -> float:
    """The largest difference of ``AutoModel``'s embeddings of every kind from ours."""
    image, box = pixels(model), [[(0.1, 0.2, 0.8, 0.9)]] * 2
    theirs = {
        "image": whole.get_image_features(image),
        "short text": whole.get_text_features(ids),
        "long text": whole.get_text_features(ids, walk_short_pos=False),
        "dense": whole.get_image_dense_features(image),
        "region": whole.get_image_box_roi_features(image, box),
    }
    ours = {
        "image": model.encode_image(image),
        "short text": model.encode_text(TEXTS),
        "long text": model.encode_text(TEXTS, kind="long"),
        "dense": model.encode_dense(image).flatten(1, 2),
        "region": model.encode_regions(image, box, unit="fraction"),
    }
    return compare("transformers", {name: (ours[name], F.normalize(x, dim=-1)) for name, x in theirs.items()})


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@torch.no_grad()
def write_vision_tower(model: FGCLIP, folder: Path) -> float:
    """Write the image tower as a ``CLIPVisionModel``, as LLaVA and its like take one, and compare.

    Returns:
        The largest difference of ``hidden_states[-2]``, which enter the last block, and of the pooled feature, both
        divided by the largest value.

    Raises:
        ValueError: transformers computes something else.
    """
    model.save(folder, {name: value for name, value in model.state_dict().items() if name.startswith("vision_model.")})

    def vision_only(config: dict[str, Any]) -> dict[str, Any]:
        return {**config["vision_config"], "model_type": "clip_vision_model", "architectures": ["CLIPVisionModel"]}

    _configure(folder, vision_only)
    from transformers import CLIPVisionModel

    peer = CLIPVisionModel.from_pretrained(folder).eval()
    theirs = peer(pixel_values=pixels(model), output_hidden_states=True)
    hidden, pooled = _hidden_states(model)
    return compare(
        "transformers",
        {
            "hidden_states[-2]": (hidden / hidden.abs().max(), theirs.hidden_states[-2] / hidden.abs().max()),
            "pooler_output": (pooled / pooled.abs().max(), theirs.pooler_output / pooled.abs().max()),
        },
    )


def _hidden_states(model: FGCLIP) -> tuple[Tensor, Tensor]:
    """What enters the last block, Tensor[2, 1 + HW, width], and the pooled feature, Tensor[2, width]."""
    from fgclip_fast.model.attention import full

    tower = model.vision_model
    stream = tower.encoder(tower.pre_layrnorm(tower.embeddings(pixels(model))), full)
    hidden = stream.residual
    if stream.update is not None:
        hidden = hidden + stream.update + stream.bias
    return hidden, tower(pixels(model), dense=False)[0]


def _configure(folder: Path, change: Any) -> None:
    config = change(json.loads((folder / "config.json").read_text()))
    config.pop("auto_map", None)
    write_whole(folder / "config.json", json.dumps(config, indent=2) + "\n")
