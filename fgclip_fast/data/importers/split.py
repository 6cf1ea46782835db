"""Divide images into training, validation and test so that duplicates and near-duplicates stay on one side."""

from typing import NamedTuple

import numpy as np

from fgclip_fast.data.duplicates import groups
from fgclip_fast.data.importers.look import Images

REFUSED = -1


class Divided(NamedTuple):
    """The side of each record, and the duplicates among its images."""

    side: np.ndarray
    """int8 [N]: position in :data:`~fgclip_fast.data.importers.source.SPLITS`, or :data:`REFUSED`."""
    equal: int
    """Usable records whose image file another usable record before them has."""
    near: int
    """Further ones whose image is nearly that of one before them."""


def divide(images: Images, val: float | None, earlier: np.ndarray | None = None) -> Divided:
    """Divide records.

    A group's side follows from the smallest digest of its images: the same at any time and whatever else is imported,
    for an image without duplicates.

    Args:
        images: those of all records.
        val: share of the groups for validation, 0 to 1; None: the split that the source states, training without one.
            A group whose images are stated to be of several is of the one that is held out most.
        earlier: int8 [N], sides that are fixed already, :data:`REFUSED` where not; a group follows them.
    """
    side = np.full(len(images.good), REFUSED, np.int8)
    good = np.flatnonzero(images.good)
    digests = images.digests[good]
    group = groups(digests, images.hashes[good])
    leading = np.ascontiguousarray(digests[:, :8]).view(">u8").ravel().astype(np.uint64)
    smallest = np.full(len(good), np.iinfo(np.uint64).max)
    np.minimum.at(smallest, group, leading)
    side[good] = (smallest[group] / 2.0**64 < (val or 0)).astype(np.int8)
    for known in (images.split if val is None else None, earlier):
        if known is not None:
            highest = np.full(len(good), REFUSED, np.int8)
            np.maximum.at(highest, group, known[good])
            follow = highest[group] != REFUSED
            side[good[follow]] = highest[group][follow]
    if earlier is not None:
        side[earlier != REFUSED] = earlier[earlier != REFUSED]
    files = len(np.unique(digests, axis=0)) if len(good) else 0
    return Divided(side, len(good) - files, files - len(np.unique(group)))
