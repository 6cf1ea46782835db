"""Causal attention of every token to its ancestors in a prefix tree."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fgclip_fast.ops.prefix_tree import TILE, Tree

SPINE_STEP = 16  # tiles whose spines round up to the same multiple go through one scaled_dot_product_attention


def tree_attention(q: Tensor, k: Tensor, v: Tensor, tree: Tree) -> Tensor:
    """Softmax attention of each token to its ancestors and itself, scaled by ``head_dim ** -0.5``.

    An ancestor of any token in a tile of TILE tokens lies in the tile, or is an ancestor of the tile's first token
    (subtrees are contiguous): a tile's keys are its spine and itself, under the mask ``j <= i < end[j]``.

    Args:
        q, k, v: Tensor[T, heads, head_dim], fp32, fp16 or bf16, alike in all.
        tree: Of T tokens, on the device of ``q``.

    Returns:
        Tensor[T, heads, head_dim], differentiable in ``q``, ``k`` and ``v``.

    Raises:
        ValueError: A shape, dtype or device does not fit; the message names the argument.
    """
    _check(q, k, v, tree)
    return _tiled(q, k, v, tree)


def _check(q: Tensor, k: Tensor, v: Tensor, tree: Tree) -> None:
    T = len(tree.end)
    if q.dim() != 3 or len(q) != T:
        raise ValueError(f"tree_attention: q must be [T, heads, head_dim] with T = {T}, got {list(q.shape)}")
    for name, tensor in (("k", k), ("v", v)):
        if (tensor.shape, tensor.dtype, tensor.device) != (q.shape, q.dtype, q.device):
            came = f"{list(tensor.shape)} {tensor.dtype} on {tensor.device}"
            raise ValueError(
                f"tree_attention: {name} must be like q, {list(q.shape)} {q.dtype} on {q.device}, got {came}"
            )
    if tree.end.device != q.device:
        raise ValueError(f"tree_attention: tree must be on the device of q, {q.device}, got {tree.end.device}")


class _Batch(NamedTuple):
    """Tiles whose spines are about equally long."""

    query: Tensor  # [n, TILE] tokens; the last tile repeats the last one
    key: Tensor  # [n, L + TILE] tokens: the spine, filled up with anything, then the tile
    seen: Tensor  # [n, 1, TILE, L + TILE] bool


def _tiled(q: Tensor, k: Tensor, v: Tensor, tree: Tree) -> Tensor:
    """Dense products only, on any device: one masked attention for each batch of tiles."""
    if len(q) == 0:
        return q + k + v  # empty, and in the graph
    batches, place = _batches_of(tree)
    summed = torch.promote_types(q.dtype, torch.float32)  # of the gradients that a shared key gets
    rows = q.flatten(1), k.flatten(1).to(summed), v.flatten(1).to(summed)
    tiles = [_attend(*rows, batch, q.shape[1], q.dtype) for batch in batches]
    return F.embedding(place, torch.cat(tiles)).view_as(q)


def _attend(q: Tensor, k: Tensor, v: Tensor, batch: _Batch, heads: int, dtype: torch.dtype) -> Tensor:
    # F.embedding: the backward of q[index] is not deterministic on a CPU
    gathered = F.embedding(batch.query, q), F.embedding(batch.key, k).to(dtype), F.embedding(batch.key, v).to(dtype)
    q_tile, k_tile, v_tile = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in gathered)
    out = F.scaled_dot_product_attention(q_tile, k_tile, v_tile, attn_mask=batch.seen)
    return out.transpose(1, 2).reshape(-1, q.shape[1])


_BATCHES: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # made once for all layers and both passes


def _batches_of(tree: Tree) -> tuple[list[_Batch], Tensor]:
    """The tiles by rounded spine length; and where each token's row stands in them, [T]."""
    if tree.end not in _BATCHES:
        length = tree.spine_offsets.diff().long()
        rounded = (length + SPINE_STEP - 1) // SPINE_STEP * SPINE_STEP
        tiles = [(rounded == size).nonzero()[:, 0] for size in rounded.unique().tolist()]
        token = torch.arange(TILE, device=length.device)
        order = torch.cat([(tile[:, None] * TILE + token).flatten() for tile in tiles])
        batches = [_batch(tree, tile, int(rounded[tile[0]]), length[tile]) for tile in tiles]
        _BATCHES[tree.end] = batches, order.argsort()[: len(tree.end)]
    return _BATCHES[tree.end]


def _batch(tree: Tree, tile: Tensor, size: int, length: Tensor) -> _Batch:
    """``tile [n]`` with spines of ``length [n]``, all filled up to ``size``."""
    token, step = (torch.arange(n, device=tile.device) for n in (TILE, size))
    own = tile[:, None] * TILE + token
    query = own.clamp(max=len(tree.end) - 1)
    ours = step < length[:, None]
    spine = tree.spine[torch.where(ours, tree.spine_offsets[tile][:, None] + step, 0)] if size else own[:, :0]
    key = torch.cat([spine, query], dim=1)
    past = query[:, :, None] >= torch.cat([spine, own], dim=1)[:, None, :]  # own: what the last tile repeats is no key
    seen = past & (query[:, :, None] < tree.end[key][:, None, :])
    seen[:, :, :size] &= ours[:, None, :]
    return _Batch(query, key, seen[:, None])
