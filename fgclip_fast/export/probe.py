"""Inputs that every export is compared on, and the comparison."""

import torch
from torch import Tensor

from fgclip_fast.inputs.image import normalize
from fgclip_fast.model.fgclip import FGCLIP

TEXTS = ["a red mug", "two dogs on a sofa, looking at a cat", ""]
TOLERANCE = 1e-4
"""Largest difference in a component of an embedding of length 1; rounding of deep fp32 towers stays far below."""


def pixels(model: FGCLIP) -> Tensor:
    """Two images of noise, normalised, Tensor[2, 3, S, S]; the same at every call."""
    size, generator = model.config.vision.image_size, torch.Generator().manual_seed(0)
    return normalize(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=generator))


def compare_short_path(
    consumer: str, model: FGCLIP, image: Tensor, text: Tensor, tolerance: float = TOLERANCE
) -> float:
    """The largest difference of a consumer's embeddings of length 1, of :func:`pixels` and of TEXTS, from ours.

    Raises:
        ValueError: it is larger than ``tolerance``.
    """
    ours = model.encode_image(pixels(model)), model.encode_text(TEXTS)
    return compare(consumer, {"image": (ours[0], image), "text": (ours[1], text)}, tolerance)


def compare(consumer: str, pairs: dict[str, tuple[Tensor, Tensor]], tolerance: float = TOLERANCE) -> float:
    """The largest difference of several (ours, theirs).

    Raises:
        ValueError: one is larger than ``tolerance``; the message names it.
    """
    differences = {name: float((ours - theirs).abs().max()) for name, (ours, theirs) in pairs.items()}
    for name, difference in differences.items():
        if not difference <= tolerance:  # nan too
            raise ValueError(f"export: {consumer} computes another {name}: it differs by {difference:.1e}")
    return max(differences.values())
