"""A folder in the released layout, with its tokenizer and image processor."""

from pathlib import Path

import torch

from fgclip_fast.export.probe import TEXTS, compare, pixels
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP


@torch.no_grad()
def write_fg_clip(model: FGCLIP, folder: Path) -> float:
    """Write the whole model as FG-CLIP was released, load it anew, and compare.

    Returns:
        The largest difference of an embedding of length 1.

    Raises:
        ValueError: a tensor of the folder is another, or its embeddings are.
    """
    model.save(folder)
    peer = pretrained.load(folder).eval()
    for name, value in model.state_dict().items():
        if not torch.equal(peer.state_dict()[name], value):
            raise ValueError(f"export: {folder} holds another {name}")
    image, box = pixels(model), [[(0.1, 0.2, 0.8, 0.9)]] * 2
    pairs = {"image": (model.encode_image(image), peer.encode_image(image))}
    for kind in ("short", "long"):
        pairs[f"{kind} text"] = (model.encode_text(TEXTS, kind=kind), peer.encode_text(TEXTS, kind=kind))
    ours, theirs = (x.encode_regions(image, box, unit="fraction") for x in (model, peer))
    pairs["region"] = ours, theirs
    return compare("fgclip_fast", pairs)
