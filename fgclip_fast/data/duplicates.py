"""Find near-duplicate images by hashes of their brightness, in time that is almost linear in their number.

Each image has two hashes of 64 bits (difference hashes: is a cell brighter than its neighbour, along rows and along
columns of an 8 x 8 grid). Two images are near-duplicates if each hash differs in at most :data:`DISTANCE` bits: the
same picture resized or saved again, not another picture of the same thing.
"""

from itertools import combinations

import numpy as np
from torch import Tensor

DISTANCE = 3
"""Bits by which each of the two hashes may differ."""
SIZE = 72
"""Side of the squashed image of which hashes are taken: 8 and 9 cells fit."""
# Sum over a cell's 72 pixels of three bytes: two levels of brightness, so that even areas give no random bits.
_MARGIN = 2 * 72 * 3
_BANDS = 6  # of the hash; hashes that differ in 3 bits agree in 3 of 6 bands at least


def difference_hashes(image: Tensor) -> tuple[int, int]:
    """Hash an image along its rows and along its columns.

    Args:
        image: uint8 Tensor[3, 72, 72].
    """
    grey = image.numpy().astype(np.int32).sum(0)
    rows = grey.reshape(8, 9, 9, 8).sum((1, 3))
    columns = grey.reshape(9, 8, 8, 9).sum((1, 3))
    return _bits(rows[:, 1:] - rows[:, :-1] > _MARGIN), _bits(columns[1:] - columns[:-1] > _MARGIN)


def groups(digests: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Join equal files and near-duplicates to groups.

    Args:
        digests: uint8 [N, 16] of the files.
        rows: uint64 [N], the first hash of each image.
        columns: uint64 [N], the second.

    Returns:
        int64 [N]: the first image of each image's group. A chain of near-duplicates is one group.
    """
    halves = np.ascontiguousarray(digests).view(np.uint64).reshape(-1, 2)
    files, exact = np.unique(halves, axis=0, return_inverse=True)
    hashes, near = np.unique(np.stack([rows, columns], 1), axis=0, return_inverse=True)
    ends = _near_pairs(hashes)
    # Images, then one node for each digest, then one for each pair of hashes.
    images, offset = np.arange(len(rows)), len(rows) + len(files)
    first = np.concatenate([images, images, ends[0] + offset])
    second = np.concatenate([exact.ravel() + len(rows), near.ravel() + offset, ends[1] + offset])
    return _components(first, second, offset + len(hashes))[: len(rows)]


def _bits(differences: np.ndarray) -> int:
    return int.from_bytes(np.packbits(differences).tobytes(), "big")


def _near_pairs(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of pairs of near hashes [M, 2]: those that agree in half of the bands are compared."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for bands in combinations(range(_BANDS), _BANDS // 2):
        masked = hashes[:, 0] & np.uint64(sum(_band(i) for i in bands))
        order = np.argsort(masked, kind="stable")
        masked = masked[order]
        left, step = np.arange(len(order) - 1), 1
        while len(left):
            left = left[left + step < len(order)]
            left = left[masked[left] == masked[left + step]]
            pair = order[left], order[left + step]
            near = (_distance(hashes[pair[0]], hashes[pair[1]]) <= DISTANCE).all(1)
            found.append((pair[0][near], pair[1][near]))
            step += 1
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])


def _band(i: int) -> int:
    first, last = 64 * i // _BANDS, 64 * (i + 1) // _BANDS
    return (1 << last) - (1 << first)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    bits = np.unpackbits((a ^ b).view(np.uint8), axis=-1)
    return bits.reshape(*a.shape, 64).sum(-1)


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
