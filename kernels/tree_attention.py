"""Attention of each token to its ancestors in a prefix tree, on a GPU: the forward pass, and what both passes share.

A block of queries meets its tile's spine, gathered by index, and then the tile itself, under ``j <= i < end[j]``.
"""

from typing import Protocol

import torch
import triton
import triton.language as tl
from torch import Tensor

from fgclip_fast.kernels.launch import on_own_device, rows as rows_of

MAX_HEAD_DIM = 128
"""Wider heads do not fit into registers."""
LOG2E = 1.4426950408889634


class TreeArrays(Protocol):
    """Arrays of an ops.Tree that the kernels read; kernels/ imports nothing of ops/."""

    @property
    def end(self) -> Tensor: ...
    @property
    def spine_offsets(self) -> Tensor: ...
    @property
    def spine(self) -> Tensor: ...
    @property
    def far_key_offsets(self) -> Tensor: ...
    @property
    def sum_key(self) -> Tensor: ...
    @property
    def sum_offsets(self) -> Tensor: ...
    @property
    def far_rows(self) -> Tensor: ...


@triton.jit
def load_rows(ptr, index, stride, keep, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows ``index`` of one head; 0 where ``keep`` is false."""
    column = tl.arange(0, BLOCK_D)
    at = ptr + index.to(tl.int64)[:, None] * stride + column[None, :]
    mask = keep[:, None] if D == BLOCK_D else keep[:, None] & (column < D)[None, :]
    return tl.load(at, mask=mask, other=0.0)


@triton.jit
def store_rows(ptr, index, stride, keep, rows, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Writes what ``load_rows`` would read."""
    column = tl.arange(0, BLOCK_D)
    at = ptr + index.to(tl.int64)[:, None] * stride + column[None, :]
    mask = keep[:, None] if D == BLOCK_D else keep[:, None] & (column < D)[None, :]
    tl.store(at, rows.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def dot(a, b, total, exact: tl.constexpr):
    """``total + a @ b``; fp32 stays fp32, since TF32 would keep 10 bits."""
    return tl.dot(a, b, total, input_precision="ieee" if exact else "tf32")


@triton.jit
def seen_by(i, j, end_ptr, T):
    """[queries, keys]; an index of T or more sees nothing and is seen by nobody."""
    end = tl.load(end_ptr + j, mask=j < T, other=0)
    return (j[None, :] <= i[:, None]) & (i[:, None] < end[None, :])


@triton.jit
def _attend(
    q, i, j, maximum, total, out, k_ptr, v_ptr, end_ptr, k_stride, v_stride, T, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Keys ``j`` added to the running maximum, sum and output of queries ``i``; logits are to base 2."""
    exact: tl.constexpr = q.dtype == tl.float32
    k = load_rows(k_ptr, j, k_stride, j < T, D, BLOCK_D)
    v = load_rows(v_ptr, j, v_stride, j < T, D, BLOCK_D)
    logit = dot(q, tl.trans(k), tl.zeros([q.shape[0], k.shape[0]], tl.float32), exact) * scale
    logit = tl.where(seen_by(i, j, end_ptr, T), logit, -float("inf"))
    raised = tl.maximum(maximum, tl.max(logit, 1))
    # A query that has seen no key yet has the maximum -inf, and -inf minus -inf is NaN.
    base = tl.where(raised == -float("inf"), 0.0, raised)
    weight = tl.exp2(logit - base[:, None])
    shrink = tl.exp2(maximum - base)
    out = dot(weight.to(v.dtype), v, out * shrink[:, None], exact)
    return raised, total * shrink + tl.sum(weight, 1), out


@triton.jit(do_not_specialize=["T"])
def _forward_kernel(
    q_ptr, k_ptr, v_ptr, end_ptr, spine_offsets_ptr, spine_ptr,  # [T, heads, D] x 3, [T], [tiles + 1], [S]
    out_ptr, lse_ptr,                                            # [T, heads, D], [heads, T]
    q_stride, k_stride, v_stride, out_stride, q_head, k_head, v_head,
    T, scale, D: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # One program computes BLOCK queries of one head.
    first_query = tl.program_id(0) * BLOCK
    head = tl.program_id(1)
    tile = first_query // TILE
    q_ptr, k_ptr, v_ptr = q_ptr + head * q_head, k_ptr + head * k_head, v_ptr + head * v_head
    i = first_query + tl.arange(0, BLOCK)
    q = load_rows(q_ptr, i, q_stride, i < T, D, BLOCK_D)
    maximum = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    out = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    # Keys of the tile's spine, gathered by index.
    first, last = tl.load(spine_offsets_ptr + tile), tl.load(spine_offsets_ptr + tile + 1)
    for start in range(first, last, STEP):
        place = start + tl.arange(0, STEP)
        j = tl.load(spine_ptr + place, mask=place < last, other=T)
        maximum, total, out = _attend(
            q, i, j, maximum, total, out, k_ptr, v_ptr, end_ptr, k_stride, v_stride, T, scale, D, BLOCK_D
        )
    # Keys of the tile itself, up to the last query.
    for start in range(tile * TILE, first_query + BLOCK, STEP):
        j = start + tl.arange(0, STEP)
        maximum, total, out = _attend(
            q, i, j, maximum, total, out, k_ptr, v_ptr, end_ptr, k_stride, v_stride, T, scale, D, BLOCK_D
        )
    # Rows past T have seen no key; in all others the largest weight is 1, so that total is at least that.
    total = tl.maximum(total, 1.0)
    store_rows(out_ptr + head * D, i, out_stride, i < T, out / total[:, None], D, BLOCK_D)
    tl.store(lse_ptr + head * T + i, maximum + tl.log2(total), mask=i < T)


@on_own_device
def forward(q: Tensor, k: Tensor, v: Tensor, tree: TreeArrays, tile: int) -> tuple[Tensor, Tensor]:
    """Compute the output [T, heads, D] and the log-sum-exp to base 2 [heads, T], fp32."""
    q, k, v = map(rows_of, (q, k, v))
    T, heads, D = q.shape
    out, lse = torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(heads, T, dtype=torch.float32)
    if T > 0 and heads > 0:  # a grid of no programs is a launch error
        blocks = blocks_of("forward", q)
        _forward_kernel[(triton.cdiv(T, blocks["BLOCK"]), heads)](
            q, k, v, tree.end, tree.spine_offsets, tree.spine, out, lse,
            q.stride(0), k.stride(0), v.stride(0), heads * D, q.stride(1), k.stride(1), v.stride(1),
            T, D**-0.5 * LOG2E, D=D, TILE=tile, **blocks,
        )  # fmt: skip
    return out, lse


# Block of a program (queries; backward its keys too), step over the other side, warps and stages. All compile without
# spills; of head_dim 64, two programs or more share an SM (tests/kernels/test_tree_attention.py). Its loops run once or
# twice, since a spine has 20 keys on average: a second stage would take registers and load nothing ahead. Backward, 64
# rows are what wgmma takes on sm_90; a step of 64 would spill on sm_80, sm_89 and sm_120.
_HALF = {
    "forward": {32: (64, 64, 4, 2), 64: (64, 64, 4, 1), 128: (64, 32, 4, 2)},
    "backward": {32: (64, 32, 4, 1), 64: (64, 32, 4, 1), 128: (32, 32, 8, 2)},
}
_SINGLE = {
    "forward": {32: (32, 16, 4, 1), 64: (32, 16, 8, 1), 128: (32, 16, 8, 1)},
    "backward": {32: (32, 16, 8, 1), 64: (16, 16, 8, 1), 128: (16, 16, 8, 1)},
}


def blocks_of(kernel: str, q: Tensor) -> dict[str, int]:
    """Sizes and options of a launch."""
    BLOCK_D = max(16, triton.next_power_of_2(q.shape[2]))
    table = (_SINGLE if q.dtype == torch.float32 else _HALF)[kernel]
    BLOCK, STEP, num_warps, num_stages = table[max(32, BLOCK_D)]
    return {"BLOCK": BLOCK, "STEP": STEP, "BLOCK_D": BLOCK_D, "num_warps": num_warps, "num_stages": num_stages}
