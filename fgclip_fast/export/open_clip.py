"""A folder that open_clip loads by ``local-dir:``: the image tower and the short path."""

import json
from pathlib import Path

import torch
from torch import Tensor

from fgclip_fast.export.probe import TEXTS, compare_short_path, pixels
from fgclip_fast.files.whole_file import write_whole
from fgclip_fast.inputs.image import MEAN, STD
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.foreign import CONFIG, NO_WEIGHTS, TRANSPOSED, WEIGHTS, translate
from fgclip_fast.model.weights import write_tensors


@torch.no_grad()
def write_open_clip(model: FGCLIP, folder: Path) -> float:
    """Write the model as a CLIP of open_clip's, load it by open_clip, and compare.

    Returns:
        The largest difference of an embedding of length 1.

    Raises:
        ValueError: open_clip computes something else.
    """
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(model)
    parts = config["model_cfg"]
    peer = open_clip.CLIP(**parts).eval()
    state = state_of(model, peer.state_dict())
    write_tensors(folder / WEIGHTS, state, {"format": "pt"})
    write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    loaded, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    loaded.eval()
    image = loaded.encode_image(pixels(model), normalize=True)
    text = loaded.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS), normalize=True)
    return compare_short_path("open_clip", model, image, text)


def state_of(model: FGCLIP, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors by their names, found by the reader's own translation of each of theirs."""
    ours, state = model.state_dict(), {}
    for name, value in theirs.items():
        if name in NO_WEIGHTS:
            continue
        found = [ours[own] for own in translate({name: value})]
        joined = torch.cat(found) if len(found) > 1 else found[0]
        state[name] = (joined.T if name in TRANSPOSED else joined).contiguous()
    return state


def config_of(model: FGCLIP) -> dict[str, dict]:
    """The content of ``open_clip_config.json``."""
    vision, text = model.config.vision, model.config.text
    return {
        "model_cfg": {
            "embed_dim": model.config.projection,
            "quick_gelu": model.config.activation == "quick_gelu",
            "vision_cfg": {
                "image_size": vision.image_size,
                "layers": vision.layers,
                "width": vision.width,
                "head_width": vision.width // vision.heads,
                "patch_size": vision.patch_size,
                "mlp_ratio": vision.mlp / vision.width,
            },
            "text_cfg": {
                "context_length": 77,
                "vocab_size": text.vocabulary,
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
                "mlp_ratio": text.mlp / text.width,
            },
        },
        "preprocess_cfg": {
            "mean": list(MEAN),
            "std": list(STD),
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }
