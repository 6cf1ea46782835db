"""Another view of an image at each visit, a part of it or its mirror image, with boxes that stay on their objects."""

import numpy as np
from torch import Tensor

from fgclip_fast import config
from fgclip_fast.data.records import Record

LEAST_KEPT = 0.5
"""Share of a region's area that a part of the image must show; with less the region is left out of the visit."""


def view(record: Record, image: Tensor, data: config.Data, random: np.random.Generator) -> tuple[Record, Tensor]:
    """Draw the view of one visit; an equal state of ``random`` gives an equal view.

    A part has the aspect of the image, and borders on whole pixels, to which its boxes refer. The whole image is shown
    where a part would leave none of its regions.

    Args:
        record: its boxes are fractions of ``image``.
        image: uint8 Tensor[3, H, W], upright.
        data: ``crop``, bounds of the share of the area that is shown; ``flip``, mirror every second visit or so.
        random: of the visit.

    Returns:
        The record with the regions that are shown, their boxes cut and as fractions of the view; and the view.
    """
    if data.crop != (1.0, 1.0):
        record, image = _part(record, image, random.uniform(*data.crop) ** 0.5, random)
    if data.flip and random.random() < 0.5:
        boxes = _boxes(record)
        record = _with_boxes(record, np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1))
        image = image.flip(-1)
    return record, image


def _part(record: Record, image: Tensor, side: float, random: np.random.Generator) -> tuple[Record, Tensor]:
    """The part of ``side`` times the width and height at a random place."""
    whole = np.array([image.shape[-1], image.shape[-2]])
    size = np.maximum(1, np.rint(whole * side).astype(int))
    x, y = start = random.integers(whole - size + 1)
    rows = image.permute(1, 2, 0)[y : y + size[1], x : x + size[0]].contiguous()
    part = rows.permute(2, 0, 1)  # channels last in memory, for which squash has a fast path
    boxes = _boxes(record)
    shown = np.clip((boxes * np.tile(whole, 2) - np.tile(start, 2)) / np.tile(size, 2), 0, 1)
    in_image = _area(np.clip(boxes, 0, 1)) * whole.prod() / size.prod()
    kept = (_area(shown) >= LEAST_KEPT * in_image) & (_area(shown) > 0)
    if len(boxes) and not kept.any():
        return record, image
    regions = tuple(region for region, keep in zip(record.regions, kept, strict=True) if keep)
    return _with_boxes(record._replace(regions=regions), shown[kept]), part


def _boxes(record: Record) -> np.ndarray:
    return np.array([region.box for region in record.regions], np.float64).reshape(-1, 4)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:].astype(np.float32) - boxes[:, :2].astype(np.float32)).prod(axis=1)


def _with_boxes(record: Record, boxes: np.ndarray) -> Record:
    rounded = boxes.astype(np.float32).tolist()
    regions = zip(record.regions, rounded, strict=True)
    return record._replace(regions=tuple(region._replace(box=tuple(box)) for region, box in regions))
