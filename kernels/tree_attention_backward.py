"""The backward pass of kernels/tree_attention.py: one program for each block of tokens.

A program sums the gradient of its queries, then those of its keys. The descendants of key ``j`` are the run
``[j, end[j])``; the program goes through those in its tile and in the REACH - 1 tiles after it, which is all for most
keys. The few keys near a root that have descendants further away are far keys there: each block of queries that sees
one writes an fp32 row of partial gradients, and a last kernel adds these rows in the order that the tree gives. There
are no atomics, so that the bits are the same every time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fgclip_fast.kernels.launch import on_own_device, rows as rows_of
from fgclip_fast.kernels.tree_attention import (
    LOG2E,
    TreeArrays,
    blocks_of,
    dot,
    load_rows,
    seen_by,
    store_rows,
)

FAR_BLOCK = 16
"""Far keys of one product; tl.dot takes no fewer, and a tile has few."""


@triton.jit
def _delta(grad, out):
    """Sum of gradient times output, of each query."""
    return tl.sum(grad.to(tl.float32) * out.to(tl.float32), 1)


@triton.jit
def _grad_query(
    q, grad, i, j, lse, delta, grad_q, k_ptr, v_ptr, end_ptr, k_stride, v_stride, T, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """What keys ``j`` add to the gradient of queries ``i``, but for the scale."""
    exact: tl.constexpr = q.dtype == tl.float32
    k = load_rows(k_ptr, j, k_stride, j < T, D, BLOCK_D)
    v = load_rows(v_ptr, j, v_stride, j < T, D, BLOCK_D)
    zero = tl.zeros([q.shape[0], k.shape[0]], tl.float32)
    logit = dot(q, tl.trans(k), zero, exact) * scale
    weight = tl.where(seen_by(i, j, end_ptr, T), tl.exp2(logit - lse[:, None]), 0.0)
    grad_logit = weight * (dot(grad, tl.trans(v), zero, exact) - delta[:, None])
    return dot(grad_logit.to(k.dtype), k, grad_q, exact)


@triton.jit
def _grad_key(
    k, v, i, seen, q_ptr, grad_ptr, out_ptr, lse_ptr, grad_k, grad_v, q_stride, grad_stride, out_stride, T, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """What queries ``i`` add to the gradients of keys, but for the scale; ``seen`` is [keys, queries]."""
    exact: tl.constexpr = k.dtype == tl.float32
    grad = load_rows(grad_ptr, i, grad_stride, i < T, D, BLOCK_D)
    delta = _delta(grad, load_rows(out_ptr, i, out_stride, i < T, D, BLOCK_D))
    q = load_rows(q_ptr, i, q_stride, i < T, D, BLOCK_D)
    lse = tl.load(lse_ptr + i, mask=i < T, other=0.0)
    zero = tl.zeros([k.shape[0], q.shape[0]], tl.float32)
    weight = tl.where(seen, tl.exp2(dot(k, tl.trans(q), zero, exact) * scale - lse[None, :]), 0.0)
    grad_v = dot(weight.to(grad.dtype), grad, grad_v, exact)
    grad_logit = weight * (dot(v, tl.trans(grad), zero, exact) - delta[None, :])
    return dot(grad_logit.to(q.dtype), q, grad_k, exact), grad_v


@triton.jit(do_not_specialize=["T", "P"])
def _backward_kernel(
    grad_ptr, q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr,               # [T, heads, D] x 5, [heads, T]
    end_ptr, spine_offsets_ptr, spine_ptr, far_key_offsets_ptr,    # [T], [tiles + 1], [S], [tiles + 1]
    grad_q_ptr, grad_k_ptr, grad_v_ptr, part_k_ptr, part_v_ptr,    # [T, heads, D] x 3, [PARTS, P, heads, D] x 2
    grad_stride, q_stride, k_stride, v_stride, out_stride, grad_head, q_head, k_head, v_head,
    T, P, scale, grad_scale,
    D: tl.constexpr, TILE: tl.constexpr, REACH: tl.constexpr, FAR_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr, STEP: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # One program computes the gradients of BLOCK tokens of one head, as queries and as keys.
    first = tl.program_id(0) * BLOCK
    head = tl.program_id(1)
    tile = first // TILE
    q_ptr, k_ptr, v_ptr = q_ptr + head * q_head, k_ptr + head * k_head, v_ptr + head * v_head
    grad_ptr, out_ptr, lse_ptr = grad_ptr + head * grad_head, out_ptr + head * D, lse_ptr + head * T
    own = first + tl.arange(0, BLOCK)
    spine, spine_end = tl.load(spine_offsets_ptr + tile), tl.load(spine_offsets_ptr + tile + 1)

    # 1. The gradient of the own queries: over the keys of the spine, then over those of the tile.
    q = load_rows(q_ptr, own, q_stride, own < T, D, BLOCK_D)
    grad = load_rows(grad_ptr, own, grad_stride, own < T, D, BLOCK_D)
    delta = _delta(grad, load_rows(out_ptr, own, out_stride, own < T, D, BLOCK_D))
    lse = tl.load(lse_ptr + own, mask=own < T, other=0.0)
    grad_q = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    for start in range(spine, spine_end, STEP):
        place = start + tl.arange(0, STEP)
        j = tl.load(spine_ptr + place, mask=place < spine_end, other=T)
        grad_q = _grad_query(
            q, grad, own, j, lse, delta, grad_q, k_ptr, v_ptr, end_ptr, k_stride, v_stride, T, scale, D, BLOCK_D
        )
    for start in range(tile * TILE, first + BLOCK, STEP):
        j = start + tl.arange(0, STEP)
        grad_q = _grad_query(
            q, grad, own, j, lse, delta, grad_q, k_ptr, v_ptr, end_ptr, k_stride, v_stride, T, scale, D, BLOCK_D
        )
    store_rows(grad_q_ptr + head * D, own, out_stride, own < T, grad_q * grad_scale, D, BLOCK_D)

    # 2. The gradients of the own keys: over their descendants in this tile and the REACH - 1 tiles after it.
    k = load_rows(k_ptr, own, k_stride, own < T, D, BLOCK_D)
    v = load_rows(v_ptr, own, v_stride, own < T, D, BLOCK_D)
    end = tl.minimum(tl.load(end_ptr + own, mask=own < T, other=0), (tile + REACH) * TILE)
    grad_k, grad_v = tl.zeros([BLOCK, BLOCK_D], tl.float32), tl.zeros([BLOCK, BLOCK_D], tl.float32)
    for start in range(first, tl.max(end), STEP):
        i = start + tl.arange(0, STEP)
        seen = (own[:, None] <= i[None, :]) & (i[None, :] < end[:, None])
        grad_k, grad_v = _grad_key(
            k, v, i, seen, q_ptr, grad_ptr, out_ptr, lse_ptr, grad_k, grad_v, q_stride, grad_stride, out_stride,
            T, scale, D, BLOCK_D,
        )  # fmt: skip
    store_rows(grad_k_ptr + head * D, own, out_stride, own < T, grad_k * grad_scale, D, BLOCK_D)
    store_rows(grad_v_ptr + head * D, own, out_stride, own < T, grad_v, D, BLOCK_D)

    # 3. Partial gradients of the far keys, from the own queries: a row each, which _sum_kernel adds up.
    far, far_end = tl.load(far_key_offsets_ptr + tile), tl.load(far_key_offsets_ptr + tile + 1)
    for start in range(far, far_end, FAR_BLOCK):
        place = start + tl.arange(0, FAR_BLOCK)
        j = tl.load(spine_ptr + spine + (place - far), mask=place < far_end, other=T)
        k_far = load_rows(k_ptr, j, k_stride, j < T, D, BLOCK_D)
        v_far = load_rows(v_ptr, j, v_stride, j < T, D, BLOCK_D)
        seen = own[None, :] < tl.load(end_ptr + j, mask=j < T, other=0)[:, None]
        zero = tl.zeros([FAR_BLOCK, BLOCK_D], tl.float32)
        part_k, part_v = _grad_key(
            k_far, v_far, own, seen, q_ptr, grad_ptr, out_ptr, lse_ptr, zero, zero, q_stride, grad_stride, out_stride,
            T, scale, D, BLOCK_D,
        )  # fmt: skip
        row = (first % TILE // BLOCK) * P + place
        store_rows(part_k_ptr + head * D, row, out_stride, place < far_end, part_k * grad_scale, D, BLOCK_D)
        store_rows(part_v_ptr + head * D, row, out_stride, place < far_end, part_v, D, BLOCK_D)


@triton.jit(do_not_specialize=["P"])
def _sum_kernel(
    part_k_ptr, part_v_ptr,                       # [PARTS, P, heads, D] x 2
    sum_key_ptr, sum_offsets_ptr, far_rows_ptr,   # [W], [W + 1], [P]
    grad_k_ptr, grad_v_ptr,                       # [T, heads, D] x 2, added to
    P, width, PARTS: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    first, last = tl.load(sum_offsets_ptr + n) * PARTS, tl.load(sum_offsets_ptr + n + 1) * PARTS
    grad_k, grad_v = tl.zeros([BLOCK_D], tl.float32), tl.zeros([BLOCK_D], tl.float32)
    # One program adds the far rows of one key, in the order of the tree.
    for start in range(first, last, ROWS):
        place = start + tl.arange(0, ROWS)
        row = tl.load(far_rows_ptr + place // PARTS, mask=place < last, other=0).to(tl.int64) + place % PARTS * P
        at = row[:, None] * width + column[None, :]
        keep = (place < last)[:, None] & (column < width)[None, :]
        grad_k += tl.sum(tl.load(part_k_ptr + at, mask=keep, other=0.0), 0)
        grad_v += tl.sum(tl.load(part_v_ptr + at, mask=keep, other=0.0), 0)
    # The sum goes on top of what the key's own program has written.
    at = tl.load(sum_key_ptr + n).to(tl.int64) * width + column
    grad_k += tl.load(grad_k_ptr + at, mask=column < width, other=0.0).to(tl.float32)
    grad_v += tl.load(grad_v_ptr + at, mask=column < width, other=0.0).to(tl.float32)
    tl.store(grad_k_ptr + at, grad_k.to(grad_k_ptr.dtype.element_ty), mask=column < width)
    tl.store(grad_v_ptr + at, grad_v.to(grad_v_ptr.dtype.element_ty), mask=column < width)


@on_own_device
def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    tree: TreeArrays,
    tile: int,
    reach: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, [T, heads, D] each. Takes 8 bytes an element of ``[blocks of a tile, P, heads, D]``."""
    grad, q, k, v = map(rows_of, (grad, q, k, v))
    T, heads, D = q.shape
    grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)]
    if T == 0 or heads == 0:
        return grads[0], grads[1], grads[2]
    blocks, P = blocks_of("backward", q), len(tree.far_rows)
    parts = tile // blocks["BLOCK"]
    part_k, part_v = (q.new_empty(parts * P, heads, D, dtype=torch.float32) for _ in range(2))
    _backward_kernel[(triton.cdiv(T, tile) * parts, heads)](  # whole tiles: every part is added up
        grad, q, k, v, out, lse, tree.end, tree.spine_offsets, tree.spine, tree.far_key_offsets,
        *grads, part_k, part_v,
        grad.stride(0), q.stride(0), k.stride(0), v.stride(0), heads * D,
        grad.stride(1), q.stride(1), k.stride(1), v.stride(1),
        T, P, D**-0.5 * LOG2E, D**-0.5, D=D, TILE=tile, REACH=reach, FAR_BLOCK=FAR_BLOCK, **blocks,
    )  # fmt: skip
    if P > 0:
        _sum_kernel[(len(tree.sum_key), triton.cdiv(heads * D, 32))](
            part_k, part_v, tree.sum_key, tree.sum_offsets, tree.far_rows, *grads[1:], P, heads * D,
            PARTS=parts, ROWS=256, BLOCK_D=32, num_warps=16,
        )  # fmt: skip
    return grads[0], grads[1], grads[2]
