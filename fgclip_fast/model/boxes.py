"""Boxes as people give them: checked, as fractions of their images, in one tensor."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

Unit = Literal["pixel", "fraction"]


def flatten(boxes: Sequence[Any], sizes: Sequence[tuple[int, int]], unit: Unit) -> tuple[Tensor, Tensor]:
    """Boxes of several images in one run.

    Args:
        boxes: of each image its boxes, [n, 4] xyxy: a tensor, an array or nested lists; n may be 0.
        sizes: width and height of each image, pixels.
        unit: whether the numbers are pixels, or fractions of the width and height.

    Returns:
        Tensor[R, 4], fp32, fractions; and Tensor[R], int64, the image of each.

    Raises:
        ValueError: a wrong shape or unit, a box that is not finite, has no area or lies outside its image; the message
            names image and box.
    """
    if unit not in ("pixel", "fraction"):
        raise ValueError(f"encode_regions: unit must be 'pixel' or 'fraction', got {unit!r}")
    if len(boxes) != len(sizes):
        raise ValueError(f"encode_regions: boxes must be one [n, 4] an image, got {len(boxes)} for {len(sizes)} images")
    rows = [_fractions(image, own, size, unit) for image, (own, size) in enumerate(zip(boxes, sizes, strict=True))]
    counts = torch.tensor([len(own) for own in rows], dtype=torch.int64)
    flat = torch.cat(rows) if rows else torch.empty(0, 4)
    return flat, torch.arange(len(rows)).repeat_interleave(counts)


def _fractions(image: int, own: Any, size: tuple[int, int], unit: Unit) -> Tensor:
    own = torch.as_tensor(own, dtype=torch.float32, device="cpu")
    if own.numel() == 0:
        return own.new_empty(0, 4)
    if own.ndim != 2 or own.shape[1] != 4:
        raise ValueError(f"encode_regions: boxes of image {image} must be [n, 4] xyxy, got {list(own.shape)}")
    whole = torch.tensor([*size, *size] if unit == "pixel" else [1, 1, 1, 1], dtype=torch.float32)
    for number, box in enumerate(own.tolist()):
        if fault := _fault(box, whole[0].item(), whole[1].item()):
            raise ValueError(f"encode_regions: box {number} of image {image} {fault}: {box} ({unit} xyxy)")
    return own / whole


def _fault(box: list[float], width: float, height: float) -> str | None:
    x1, y1, x2, y2 = box
    if not all(abs(number) < float("inf") for number in box):  # nan too
        return "is not finite"
    if x1 >= x2 or y1 >= y2:
        return "has no area"
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return f"lies outside its image of {width:g} x {height:g}"
    return None
