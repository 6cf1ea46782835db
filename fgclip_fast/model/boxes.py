"""The boxes of several images, checked, as one tensor."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fgclip_fast.inputs.boxes import BadBox, Box, checked, fractions

Unit = Literal["pixel", "fraction"]


def flatten(boxes: Sequence[Any], sizes: Sequence[tuple[int, int]], unit: Unit) -> tuple[Tensor, Tensor]:
    """Lay the boxes of several images end to end.

    Args:
        boxes: for each image its boxes, [n, 4] xyxy: a tensor, an array or nested lists; n may be 0.
        sizes: width and height of each image, pixels.
        unit: "pixel", or "fraction" of the image's width and height.

    Returns:
        Tensor[R, 4], fp32, fractions; and Tensor[R], int64, the image of each.

    Raises:
        ValueError: a wrong shape or unit, or a box that :func:`fgclip_fast.inputs.boxes.checked` refuses; the message
            names image and box.
    """
    if unit not in ("pixel", "fraction"):
        raise ValueError(f"encode_regions: unit must be 'pixel' or 'fraction', got {unit!r}")
    if len(boxes) != len(sizes):
        raise ValueError(f"encode_regions: boxes must be one [n, 4] an image, got {len(boxes)} for {len(sizes)} images")
    rows = [_checked(image, own, size, unit) for image, (own, size) in enumerate(zip(boxes, sizes, strict=True))]
    counts = torch.tensor([len(own) for own in rows], dtype=torch.int64)
    flat = torch.tensor([box for own in rows for box in own], dtype=torch.float32).reshape(-1, 4)
    return flat, torch.arange(len(rows)).repeat_interleave(counts)


def _checked(image: int, own: Any, size: tuple[int, int], unit: Unit) -> list[Box]:
    own = own if isinstance(own, Tensor) else torch.as_tensor(own, dtype=torch.float64)
    if own.numel() == 0:
        return []
    if own.ndim != 2 or own.shape[1] != 4:
        raise ValueError(f"encode_regions: boxes of image {image} must be [n, 4] xyxy, got {list(own.shape)}")
    rows = []
    for number, box in enumerate(own.tolist()):
        try:
            rows.append(checked(fractions(box, *size) if unit == "pixel" else box))
        except BadBox as bad:
            given = f"{box} ({unit} xyxy; image of {size[0]} x {size[1]})"
            raise ValueError(f"encode_regions: box {number} of image {image} {bad}, got {given}") from None
    return rows
