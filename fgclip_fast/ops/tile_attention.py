"""Tree attention in plain torch: dense products over tiles of tokens, each with its spine gathered."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fgclip_fast.ops.dense_attention import dense_attention
from fgclip_fast.ops.tree import TILE, Tree

SPINE_STEP = 16
"""Tiles whose spines round up to the same multiple of this go through one scaled_dot_product_attention."""


class _Batch(NamedTuple):
    """Tiles with spines of similar length."""

    query: Tensor  # [n, TILE] tokens; the last tile is filled up with the last token
    key: Tensor  # [n, L + TILE] tokens: the spine, filled up with any token, then the tile
    seen: Tensor  # [n, 1, TILE, L + TILE] bool


class _Tiles(NamedTuple):
    """All tiles of a tree, batch by batch."""

    batches: list[_Batch]
    query: Tensor  # the tokens of all batches' queries, one after the other
    key: Tensor  # the same of their keys
    place: Tensor  # [T], the row of each token in the joined outputs


def sdpa(q: Tensor, k: Tensor, v: Tensor, tree: Tree) -> Tensor:
    """scaled_dot_product_attention, on any device: one masked call for each batch of tiles."""
    if len(q) == 0:
        return q + k + v  # empty, and in the graph
    tiles = _tiles_of(tree)
    # Gathered for all batches at once: the backward pass then sums the gradients of each row in one pass.
    queries = _Gather.apply(q.flatten(1), tiles.query).split([batch.query.numel() for batch in tiles.batches])
    sizes = [batch.key.numel() for batch in tiles.batches]
    keys, values = (_Gather.apply(x.flatten(1), tiles.key).split(sizes) for x in (k, v))
    parts = zip(tiles.batches, queries, keys, values, strict=True)
    out = torch.cat([_attend(*part, q.shape[1]) for part in parts])
    return F.embedding(tiles.place, out).view_as(q)


def _attend(batch: _Batch, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    q, k, v = (x.view(len(batch.query), -1, heads, x.shape[1] // heads).transpose(1, 2) for x in (query, key, value))
    return dense_attention(q, k, v, batch.seen).transpose(1, 2).reshape(-1, query.shape[1])


class _Gather(torch.autograd.Function):
    """``rows[index]``; the gradients of a row that several tiles share are summed in fp32, in a fixed order."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.length, ctx.dtype = len(rows), rows.dtype
        return F.embedding(index, rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        wide = grad.to(torch.promote_types(ctx.dtype, torch.float32))
        # Unlike that of rows[index], this sum has one order on a CPU.
        return torch.ops.aten.embedding_dense_backward(wide, index, ctx.length, -1, False).to(ctx.dtype), None


_TILES: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # one entry a tree, for all layers and both passes


def _tiles_of(tree: Tree) -> _Tiles:
    """Group the tiles by rounded spine length."""
    if tree.end not in _TILES:
        length = tree.spine_offsets.diff().long()
        rounded = (length + SPINE_STEP - 1) // SPINE_STEP * SPINE_STEP
        tiles = [(rounded == size).nonzero()[:, 0] for size in rounded.unique().tolist()]
        token = torch.arange(TILE, device=length.device)
        order = torch.cat([(tile[:, None] * TILE + token).flatten() for tile in tiles])
        batches = [_batch(tree, tile, int(rounded[tile[0]]), length[tile]) for tile in tiles]
        query, key = (
            torch.cat([index.flatten() for index in each]) for each in zip(*(b[:2] for b in batches), strict=True)
        )
        _TILES[tree.end] = _Tiles(batches, query, key, order.argsort()[: len(tree.end)])
    return _TILES[tree.end]


def _batch(tree: Tree, tile: Tensor, size: int, length: Tensor) -> _Batch:
    """Gather the tiles ``tile [n]``, whose spines of ``length [n]`` are filled up to ``size``."""
    token, step = (torch.arange(n, device=tile.device) for n in (TILE, size))
    own = tile[:, None] * TILE + token
    query = own.clamp(max=len(tree.end) - 1)
    ours = step < length[:, None]
    spine = tree.spine[torch.where(ours, tree.spine_offsets[tile][:, None] + step, 0)] if size else own[:, :0]
    key = torch.cat([spine, query], dim=1)
    # Compared with own, not query: the tokens that fill up the last tile are not keys.
    past = query[:, :, None] >= torch.cat([spine, own], dim=1)[:, None, :]
    seen = past & (query[:, :, None] < tree.end[key][:, None, :])
    seen[:, :, :size] &= ours[:, None, :]
    return _Batch(query, key, seen[:, None])
