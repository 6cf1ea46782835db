"""Tree attention by packages that know flat sequences: flash-attn, torch's varlen_attn, xformers.

A segment is a maximal run of one tree edge. Its queries are consecutive; its keys are the path from the root to its
end, gathered; the mask is causal, aligned at the last query and the last key. Shared keys are read once a segment.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fgclip_fast.ops.tree import LONG_LENGTH, Tree


def flash(q: Tensor, k: Tensor, v: Tensor, tree: Tree) -> Tensor:
    """flash-attn, whose causal mask is aligned bottom-right since 2.1; its backward with a fixed order of sums."""
    from flash_attn import flash_attn_varlen_func

    k, v = (_paths(x, tree) for x in (k, v))
    offsets = tree.query_offsets, tree.key_offsets
    return flash_attn_varlen_func(q, k, v, *offsets, LONG_LENGTH, LONG_LENGTH, causal=True, deterministic=True)


def varlen(q: Tensor, k: Tensor, v: Tensor, tree: Tree) -> Tensor:
    """torch's varlen_attn; a window of (-1, 0) is its causal mask."""
    from torch.nn.attention.varlen import varlen_attn

    k, v = (_paths(x, tree) for x in (k, v))
    offsets = tree.query_offsets, tree.key_offsets
    return varlen_attn(q, k, v, *offsets, LONG_LENGTH, LONG_LENGTH, window_size=(-1, 0))  # type: ignore[return-value]


def xformers(q: Tensor, k: Tensor, v: Tensor, tree: Tree) -> Tensor:
    """xformers' memory-efficient attention; the host reads the lengths once a tree, which waits for the GPU."""
    from xformers.ops import memory_efficient_attention

    q, k, v = (x[None] for x in (q, _paths(k, tree), _paths(v, tree)))
    return memory_efficient_attention(q, k, v, attn_bias=_mask(tree))[0]


def _paths(x: Tensor, tree: Tree) -> Tensor:
    """Rows of every segment's path, [len(tree.key), heads, head_dim]; shared rows repeat, with a summed gradient."""
    return F.embedding(tree.key, x.flatten(1)).view(-1, *x.shape[1:])


_MASKS: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # one a tree, for all layers


def _mask(tree: Tree) -> Any:
    from xformers.ops.fmha.attn_bias import BlockDiagonalCausalFromBottomRightMask

    if tree.query_offsets not in _MASKS:
        lengths = (offsets.diff().tolist() for offsets in (tree.query_offsets, tree.key_offsets))
        _MASKS[tree.query_offsets] = BlockDiagonalCausalFromBottomRightMask.from_seqlens(*lengths)
    return _MASKS[tree.query_offsets]
