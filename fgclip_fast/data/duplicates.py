"""Find near-duplicate images by hashes, in time that is almost linear in their number.

Each image has three hashes of 64 bits: two of shape (difference hashes: is a cell brighter than its neighbour, along
rows and along columns of an 8 x 8 grid), and one of colour (for each quadrant, the steps that its mean redness, its
mean blueness and its mean brightness exceed). Two images are near-duplicates if each hash differs in at most
:data:`DISTANCE` bits, and those of shape in no more than a share of the bits that are set: the same picture resized or
saved again, not another picture of the same thing, nor the same drawing in another colour. Even areas set no bits of
shape, so that of two drawings on white few could differ.
"""

import hashlib
from itertools import product
from typing import NamedTuple

import numpy as np
from torch import Tensor

DISTANCE = 3
"""Bits by which each of the three hashes may differ."""
_SET = 4  # bits that are set in either hash of shape, for each bit by which the two may differ
_NEIGHBOURS = 64  # images that one is compared with of those that look alike in a band, nearest in order first
_AT_ONCE = 2**18  # pairs that are compared at once, so that memory does not grow with their number
SIZE = 72
"""Side of the squashed image of which hashes are taken: 8 and 9 cells fit."""
# Sum over a cell's 72 pixels of three bytes: two levels of brightness, so that even areas give no random bits.
_MARGIN = 2 * 72 * 3
# A bit tells if a mean lies above one of these: red less green and blue less green, -255 to 255; brightness, 0 to 255.
# None is zero, since the means of grey images lie around it.
_REDDER = _BLUER = (-40, -24, -8, 8, 24, 40)
_BRIGHTER = (51, 102, 153, 204)
_BANDS = 4  # of 16 bits in each hash; hashes that differ in 3 bits agree in one of them at least


class Hashes(NamedTuple):
    """The hashes of one image, 64 bits each."""

    rows: int
    columns: int
    colours: int


def digest_of(encoded: bytes) -> bytes:
    """The digest of an image file by which equal files are found, 16 bytes."""
    return hashlib.blake2b(encoded, digest_size=16).digest()


def hashes_of(image: Tensor) -> Hashes:
    """Hash the shape of an image along its rows and along its columns, and its colour.

    Args:
        image: uint8 Tensor[3, 72, 72].
    """
    pixels = image.numpy().astype(np.int32)
    grey = pixels.sum(0)
    rows = grey.reshape(8, 9, 9, 8).sum((1, 3))
    columns = grey.reshape(9, 8, 8, 9).sum((1, 3))
    red, green, blue = pixels.reshape(3, 2, 36, 2, 36).mean((2, 4))
    tones = ((red - green, _REDDER), (blue - green, _BLUER), ((red + green + blue) / 3, _BRIGHTER))
    colours = np.concatenate([np.greater.outer(mean, steps).ravel() for mean, steps in tones])
    shape = _bits(rows[:, 1:] - rows[:, :-1] > _MARGIN), _bits(columns[1:] - columns[:-1] > _MARGIN)
    return Hashes(*shape, _bits(colours))


def groups(digests: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Join equal files and near-duplicates to groups.

    Args:
        digests: uint8 [N, 16] of the files.
        hashes: uint64 [N, 3], :class:`Hashes` of each image.

    Returns:
        int64 [N]: the first image of each image's group. A chain of near-duplicates is one group.
    """
    halves = np.ascontiguousarray(digests).view(np.uint64).reshape(-1, 2)
    files, exact = np.unique(halves, axis=0, return_inverse=True)
    different, near = np.unique(np.ascontiguousarray(hashes), axis=0, return_inverse=True)
    ends = _near_pairs(different)
    # Images, then one node for each digest, then one for each pair of hashes.
    images, offset = np.arange(len(hashes)), len(hashes) + len(files)
    first = np.concatenate([images, images, ends[0] + offset])
    second = np.concatenate([exact.ravel() + len(hashes), near.ravel() + offset, ends[1] + offset])
    return _components(first, second, offset + len(different))[: len(hashes)]


def _bits(differences: np.ndarray) -> int:
    return int.from_bytes(np.packbits(differences).tobytes(), "big")


def _near_pairs(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of pairs of near hashes [M, 3], in order: those of which each agrees in a band are compared.

    Of many that agree, as drawings on white do, each is compared with the next ones in the order of the hashes, so that
    the time stays linear.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = []
    in_bands = hashes.view(np.uint16).reshape(-1, 3, _BANDS)
    for bands in product(range(_BANDS), repeat=3):
        own = np.zeros((len(hashes), 4), np.uint16)
        own[:, :3] = in_bands[:, range(3), bands]
        masked = own.view(np.uint64).ravel()
        order = np.argsort(masked, kind="stable")
        masked = masked[order]
        left, step = np.arange(len(order) - 1), 1
        while len(left) and step <= _NEIGHBOURS:
            left = left[left + step < len(order)]
            left = left[masked[left] == masked[left + step]]
            for first in range(0, len(left), _AT_ONCE):
                at = left[first : first + _AT_ONCE]
                pair = order[at], order[at + step]
                near = _near(hashes[pair[0]], hashes[pair[1]])
                found.append((pair[0][near], pair[1][near]))
            step += 1
        if sum(len(a) for a, _ in found) > len(hashes):  # most of them again, by other bands
            found = [_fewest(*_joined(found), len(hashes))]
    return _joined(found)


def _joined(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *(a for a, _ in pairs)]), np.concatenate([none, *(b for _, b in pairs)])


def _fewest(first: np.ndarray, second: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that make the same groups: each node with the first of its group."""
    group = _components(first, second, nodes)
    others = np.flatnonzero(group != np.arange(nodes))
    return others, group[others]


def _near(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """True where the hashes [P, 3] of two images differ in few bits."""
    different = np.bitwise_count(a ^ b)
    near = different <= DISTANCE
    near[:, :2] &= different[:, :2] <= np.bitwise_count(a[:, :2] | b[:, :2]) // _SET
    found: np.ndarray = np.logical_and.reduce(near, axis=1)
    return found


def _components(first: np.ndarray, second: np.ndarray, nodes: int) -> np.ndarray:
    """The smallest node of each node's component."""
    parent = np.arange(nodes)
    while True:
        before = parent.copy()
        smaller = np.minimum(parent[first], parent[second])
        for end in (first, second):
            np.minimum.at(parent, parent[end], smaller)
            np.minimum.at(parent, end, smaller)
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
        if np.array_equal(before, parent):
            return parent
