"""Folders that transformers loads without remote code: ``CLIPModel``, and ``CLIPVisionModel`` alone."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip_fast.export.probe import TEXTS, compare, compare_short_path, pixels
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.whole_file import write_whole

# Tensors of FG-CLIP that a CLIP lacks: the long path's and the finer terms'.
_OWN = ("_res.weight", "_ori.weight", "filip_projection.weight", "finegraind", "hardneg")


@torch.no_grad()
def write_hf(model: FGCLIP, folder: Path) -> float:
    """Write the image tower and the short path as a CLIP, load it by transformers, and compare.

    Returns:
        The largest difference of an embedding of length 1.

    Raises:
        ValueError: transformers computes something else.
    """
    model.save(folder, {name: value for name, value in model.state_dict().items() if not name.endswith(_OWN)})
    _configure(folder, lambda config: {**config, "architectures": ["CLIPModel"]})
    from transformers import AutoTokenizer, CLIPModel

    peer = CLIPModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding="max_length", max_length=77, return_tensors="pt")
    image = peer.visual_projection(peer.vision_model(pixel_values=pixels(model)).pooler_output)
    # Masked padding could not change a feature: attention is causal.
    text = peer.text_projection(peer.text_model(input_ids=tokens["input_ids"]).pooler_output)
    return compare_short_path("transformers", model, F.normalize(image, dim=-1), F.normalize(text, dim=-1))


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
