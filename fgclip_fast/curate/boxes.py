"""Choose among boxes: overlap, non-maximum suppression, and boxes that are too small or cover everything."""

from collections.abc import Sequence

import numpy as np

from fgclip_fast.inputs.boxes import BadBox, Box, checked, numbers

TINY, EVERYTHING, DUPLICATE = "tiny box", "box that covers everything", "duplicate box"
"""Faults of boxes, as they are counted, beside those of :mod:`fgclip_fast.inputs.boxes`."""


def overlaps(boxes: Sequence[Box]) -> np.ndarray:
    """Intersection over union of each pair of boxes, float [N, N]."""
    array = np.asarray(boxes, float).reshape(-1, 4)
    low = np.maximum(array[:, None, :2], array[None, :, :2])
    high = np.minimum(array[:, None, 2:], array[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(-1)
    areas = (array[:, 2:] - array[:, :2]).prod(-1)
    return inside / (areas[:, None] + areas[None, :] - inside)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes; for few boxes faster than arrays."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = ((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (one, other))
    return width * height / (sum(areas) - width * height)


def suppressed(boxes: Sequence[Box], scores: Sequence[float], limit: float) -> list[int]:
    """Non-maximum suppression: of boxes that overlap by more than ``limit`` (IoU) the one with the highest score stays.

    Returns:
        The positions of those that stay, the highest score first; of equal scores the earlier box comes first.
    """
    shared = overlaps(boxes)
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(shared[i, other] <= limit for other in kept):
            kept.append(i)
    return kept


def fault_of(box: object, smallest: float, largest: float) -> str | None:
    """The fault of a region's box, in words that are counted; None: it has none.

    Args:
        box: xyxy in fractions, as in a record.
        smallest: share of the image below which a box is tiny.
        largest: share above which it covers everything.
    """
    try:
        x0, y0, x1, y1 = checked(numbers(box))
    except BadBox as bad:
        return bad.reason
    share = (min(1.0, x1) - max(0.0, x0)) * (min(1.0, y1) - max(0.0, y0))
    if share < smallest:
        return TINY
    return EVERYTHING if share > largest else None
