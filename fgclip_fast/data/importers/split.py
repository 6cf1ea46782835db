"""Divide images into training and validation so that duplicates and near-duplicates stay on one side."""

from typing import NamedTuple

import numpy as np

from fgclip_fast.data.duplicates import groups
from fgclip_fast.data.importers.look import Images

REFUSED, TRAIN, VAL = -1, 0, 1
NAMES = ("train", "val")


class Divided(NamedTuple):
    """The side of each record, and the duplicates among its images."""

    side: np.ndarray
    """int8 [N]: :data:`TRAIN`, :data:`VAL` or :data:`REFUSED`."""
    equal: int
    """Usable records whose image file another usable record before them has."""
    near: int
    """Further ones whose image is nearly that of one before them."""


def divide(images: Images, val: float, earlier: np.ndarray | None = None) -> Divided:
    """Divide records.

    A group's side follows from the smallest digest of its images: the same at any time and whatever else is imported,
    for an image without duplicates.

    Args:
        images: those of all records.
        val: share of the groups for validation, 0 to 1.
        earlier: int8 [N], sides that are fixed already, :data:`REFUSED` where not; a group follows them.
    """
    side = np.full(len(images.good), REFUSED, np.int8)
    good = np.flatnonzero(images.good)
    digests = images.digests[good]
    group = groups(digests, images.rows[good], images.columns[good])
    leading = np.ascontiguousarray(digests[:, :8]).view(">u8").ravel().astype(np.uint64)
    smallest = np.full(len(good), np.iinfo(np.uint64).max)
    np.minimum.at(smallest, group, leading)
    side[good] = (smallest[group] / 2.0**64 < val).astype(np.int8)
    if earlier is not None:
        known = earlier[good]
        highest = np.full(len(good), REFUSED, np.int8)
        np.maximum.at(highest, group, known)
        follow = highest[group] != REFUSED
        side[good[follow]] = highest[group][follow]
        side[earlier != REFUSED] = earlier[earlier != REFUSED]
    files = len(np.unique(digests, axis=0)) if len(good) else 0
    return Divided(side, len(good) - files, files - len(np.unique(group)))
