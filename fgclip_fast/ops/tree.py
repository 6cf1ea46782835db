"""The prefix tree of a batch of texts: its arrays, and the constants of CLIP's texts that shape it."""

from typing import NamedTuple

import torch
from torch import Tensor

EOS = 49407
"""CLIP's token that ends a text; a text's feature is read where the first one stands."""
SHORT_LENGTH = 77
"""Most tokens of a text on the short path: short captions, region texts, hard negatives."""
LONG_LENGTH = 248
"""Most tokens of a text on the long path: long captions."""

# csrc/prefix_tree.h has these two and the two lengths as well.
TILE = 64
"""Tokens that attend together."""
REACH = 8
"""Tiles of queries from which a key's gradient is summed by the key's own program: its tile and the next ones. A key
that lies REACH tiles or more before a tile is a far key of that tile: its gradient goes through partial sums."""


class Tree(NamedTuple):
    """Texts in sorted order, each without its common prefix with the one before: a tree in preorder.

    The subtree of token ``j`` is the run ``[j, end[j])``, so ``j`` is token ``i`` or an ancestor of it exactly if
    ``j <= i < end[j]``. All arrays are int32. ``T`` counts tokens, ``M`` texts, ``G`` segments (maximal runs of one
    tree edge). Of a pair ``x_offsets, x``, list ``n`` is ``x[x_offsets[n]:x_offsets[n + 1]]``.
    """

    token: Tensor
    """[T]"""
    position: Tensor
    """[T], row of the position table: the short path's SHORT_LENGTH rows, then the long path's LONG_LENGTH."""
    end: Tensor
    """[T], one past the last descendant."""
    pooled: Tensor
    """[M], the token that is each text's first EOS; where prefixes are shared, equal texts of one path have equal
    entries."""
    spine_offsets: Tensor
    """[ceil(T / TILE) + 1]"""
    spine: Tensor
    """Of each tile: the ancestors of its first token, root first."""
    far_key_offsets: Tensor
    """[ceil(T / TILE) + 1], running count of far keys. A tile's far keys are the first entries of its spine; those of
    all tiles, one after another, are the far rows."""
    sum_key: Tensor
    """The distinct far keys, rising."""
    sum_offsets: Tensor
    """[len(sum_key) + 1], offsets into ``far_rows``."""
    far_rows: Tensor
    """Of each ``sum_key``: the far rows that hold it, rising. Their partial gradients are added in this order."""
    query_offsets: Tensor
    """[G + 1], the first token of each segment, then T."""
    key_offsets: Tensor
    """[G + 1]"""
    key: Tensor
    """Of each segment: the path from the root to its last token."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Tree":
        """Copy the tree to a device."""
        return Tree(*(array.to(device, non_blocking=non_blocking) for array in self))

    def pin_memory(self) -> "Tree":
        """Copy the tree to page-locked memory."""
        return Tree(*(array.pin_memory() for array in self))
