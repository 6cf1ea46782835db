"""The backward pass of kernels/tree_attention.py.

The gradient of a key is summed without atomics, in a fixed order. Its descendants are the run ``[j, end[j])``: one
program takes a block of keys through the queries of the next CHUNK tiles and holds the sum in registers. That is all
for most keys; only the few that reach further, near a root, get one fp32 row from each further chunk, and a last kernel
adds these rows in the order that the tree gives.
"""

import torch
import triton
import triton.language as tl
from fgclip_fast.kernels.launch import on_own_device
from fgclip_fast.kernels.tree_attention import LOG2E, blocks_of, dense_rows, dot, load_rows, seen_by, store_rows
from torch import Tensor


@triton.jit
def _grad_query(
    q, grad, i, j, lse, delta, grad_q, k_ptr, v_ptr, end_ptr, k_stride, v_stride, T, D, scale, BLOCK_D: tl.constexpr
):
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
def _query_kernel(
    grad_ptr, q_ptr, k_ptr, v_ptr, end_ptr, spine_offsets_ptr, spine_ptr, out_ptr, lse_ptr,
    grad_q_ptr, delta_ptr,  # [T, heads, D], [heads, T]: sum of grad * out
    grad_stride, q_stride, k_stride, v_stride, out_stride, grad_head, q_head, k_head, v_head,
    T, D, scale, grad_scale,
    TILE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    first_query = tl.program_id(0) * BLOCK_Q
    head = tl.program_id(1)
    tile = first_query // TILE
    k_ptr, v_ptr = k_ptr + head * k_head, v_ptr + head * v_head
    i = first_query + tl.arange(0, BLOCK_Q)
    q = load_rows(q_ptr + head * q_head, i, q_stride, i < T, D, BLOCK_D)
    grad = load_rows(grad_ptr + head * grad_head, i, grad_stride, i < T, D, BLOCK_D)
    out = load_rows(out_ptr + head * D, i, out_stride, i < T, D, BLOCK_D)
    delta = tl.sum(grad.to(tl.float32) * out.to(tl.float32), 1)
    tl.store(delta_ptr + head * T + i, delta, mask=i < T)
    lse = tl.load(lse_ptr + head * T + i, mask=i < T, other=0.0)
    grad_q = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    first, last = tl.load(spine_offsets_ptr + tile), tl.load(spine_offsets_ptr + tile + 1)
    for start in range(first, last, BLOCK_K):
        place = start + tl.arange(0, BLOCK_K)
        j = tl.load(spine_ptr + place, mask=place < last, other=T)
        grad_q = _grad_query(
            q, grad, i, j, lse, delta, grad_q, k_ptr, v_ptr, end_ptr, k_stride, v_stride, T, D, scale, BLOCK_D
        )
    for start in range(tile * TILE, first_query + BLOCK_Q, BLOCK_K):
        j = start + tl.arange(0, BLOCK_K)
        grad_q = _grad_query(
            q, grad, i, j, lse, delta, grad_q, k_ptr, v_ptr, end_ptr, k_stride, v_stride, T, D, scale, BLOCK_D
        )
    store_rows(grad_q_ptr + head * D, i, out_stride, i < T, grad_q * grad_scale, D, BLOCK_D)


@triton.jit
def _grad_key(
    k, v, i, seen, grad_k, grad_v, q_ptr, grad_ptr, lse_ptr, delta_ptr, q_stride, grad_stride, T, D, scale,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """What queries ``i`` add to the gradients of keys, but for the scale; ``seen`` is [keys, queries]."""
    exact: tl.constexpr = k.dtype == tl.float32
    q = load_rows(q_ptr, i, q_stride, i < T, D, BLOCK_D)
    grad = load_rows(grad_ptr, i, grad_stride, i < T, D, BLOCK_D)
    lse = tl.load(lse_ptr + i, mask=i < T, other=0.0)
    delta = tl.load(delta_ptr + i, mask=i < T, other=0.0)
    zero = tl.zeros([k.shape[0], q.shape[0]], tl.float32)
    weight = tl.where(seen, tl.exp2(dot(k, tl.trans(q), zero, exact) * scale - lse[None, :]), 0.0)
    grad_v = dot(weight.to(grad.dtype), grad, grad_v, exact)
    grad_logit = weight * (dot(v, tl.trans(grad), zero, exact) - delta[None, :])
    return dot(grad_logit.to(q.dtype), q, grad_k, exact), grad_v


@triton.jit
def _near_kernel(
    grad_ptr, q_ptr, k_ptr, v_ptr, end_ptr, lse_ptr, delta_ptr,
    grad_k_ptr, grad_v_ptr,  # [T, heads, D]
    grad_stride, q_stride, k_stride, v_stride, out_stride, grad_head, q_head, k_head, v_head,
    T, D, scale, grad_scale,
    TILE: tl.constexpr, CHUNK: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    first_key = tl.program_id(0) * BLOCK_K
    head = tl.program_id(1)
    q_ptr, grad_ptr = q_ptr + head * q_head, grad_ptr + head * grad_head
    j = first_key + tl.arange(0, BLOCK_K)
    k = load_rows(k_ptr + head * k_head, j, k_stride, j < T, D, BLOCK_D)
    v = load_rows(v_ptr + head * v_head, j, v_stride, j < T, D, BLOCK_D)
    end = tl.load(end_ptr + j, mask=j < T, other=0)
    last = tl.minimum(tl.max(end), (first_key // TILE + CHUNK) * TILE)
    grad_k, grad_v = tl.zeros([BLOCK_K, BLOCK_D], tl.float32), tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    for start in range(first_key, last, BLOCK_Q):
        i = start + tl.arange(0, BLOCK_Q)
        seen = (j[:, None] <= i[None, :]) & (i[None, :] < tl.minimum(end, last)[:, None])
        grad_k, grad_v = _grad_key(
            k, v, i, seen, grad_k, grad_v, q_ptr, grad_ptr, lse_ptr + head * T, delta_ptr + head * T,
            q_stride, grad_stride, T, D, scale, BLOCK_D,
        )  # fmt: skip
    store_rows(grad_k_ptr + head * D, j, out_stride, j < T, grad_k * grad_scale, D, BLOCK_D)
    store_rows(grad_v_ptr + head * D, j, out_stride, j < T, grad_v, D, BLOCK_D)


@triton.jit
def _far_kernel(
    grad_ptr, q_ptr, k_ptr, v_ptr, end_ptr, wide_offsets_ptr, wide_ptr, lse_ptr, delta_ptr,  # [chunks + 1], [P]
    part_k_ptr, part_v_ptr,  # [P, heads, D], fp32
    grad_stride, q_stride, k_stride, v_stride, out_stride, grad_head, q_head, k_head, v_head,
    T, D, scale, grad_scale,
    TILE: tl.constexpr, CHUNK: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0)
    head = tl.program_id(1)
    q_ptr, grad_ptr = q_ptr + head * q_head, grad_ptr + head * grad_head
    first, last = tl.load(wide_offsets_ptr + chunk), tl.load(wide_offsets_ptr + chunk + 1)
    last_query = tl.minimum((chunk + 1) * CHUNK * TILE, T)
    for row in range(first, last, BLOCK_K):
        place = row + tl.arange(0, BLOCK_K)
        j = tl.load(wide_ptr + place, mask=place < last, other=T)
        k = load_rows(k_ptr + head * k_head, j, k_stride, j < T, D, BLOCK_D)
        v = load_rows(v_ptr + head * v_head, j, v_stride, j < T, D, BLOCK_D)
        end = tl.load(end_ptr + j, mask=j < T, other=0)
        near = (j // TILE + CHUNK) * TILE  # queries before this are in _near_kernel
        grad_k, grad_v = tl.zeros([BLOCK_K, BLOCK_D], tl.float32), tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
        for start in range(chunk * CHUNK * TILE, last_query, BLOCK_Q):
            i = start + tl.arange(0, BLOCK_Q)
            seen = (near[:, None] <= i[None, :]) & (i[None, :] < end[:, None])
            grad_k, grad_v = _grad_key(
                k, v, i, seen, grad_k, grad_v, q_ptr, grad_ptr, lse_ptr + head * T, delta_ptr + head * T,
                q_stride, grad_stride, T, D, scale, BLOCK_D,
            )  # fmt: skip
        store_rows(part_k_ptr + head * D, place, out_stride, place < last, grad_k * grad_scale, D, BLOCK_D)
        store_rows(part_v_ptr + head * D, place, out_stride, place < last, grad_v, D, BLOCK_D)


@triton.jit
def _sum_kernel(
    part_k_ptr, part_v_ptr, sum_key_ptr, sum_offsets_ptr, sum_row_ptr,  # [P, heads, D] x 2, [W], [W + 1], [P]
    grad_k_ptr, grad_v_ptr,                                             # [T, heads, D], added to
    width, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    first, last = tl.load(sum_offsets_ptr + n), tl.load(sum_offsets_ptr + n + 1)
    grad_k, grad_v = tl.zeros([BLOCK_D], tl.float32), tl.zeros([BLOCK_D], tl.float32)
    for start in range(first, last, ROWS):
        place = start + tl.arange(0, ROWS)
        row = tl.load(sum_row_ptr + place, mask=place < last, other=0).to(tl.int64)
        at = row[:, None] * width + column[None, :]
        keep = (place < last)[:, None] & (column < width)[None, :]
        grad_k += tl.sum(tl.load(part_k_ptr + at, mask=keep, other=0.0), 0)
        grad_v += tl.sum(tl.load(part_v_ptr + at, mask=keep, other=0.0), 0)
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
    end: Tensor,
    spine_offsets: Tensor,
    spine: Tensor,
    wide_offsets: Tensor,
    wide: Tensor,
    sum_key: Tensor,
    sum_offsets: Tensor,
    sum_row: Tensor,
    tile: int,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, [T, heads, D] each. Takes 8 bytes an element of ``wide [P]`` x heads x D meanwhile."""
    grad, q, k, v = map(dense_rows, (grad, q, k, v))
    T, heads, D = q.shape
    grad_q, grad_k, grad_v = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    if T == 0 or heads == 0:
        return grad_q, grad_k, grad_v
    delta = torch.empty_like(lse)
    strides = [grad.stride(0), q.stride(0), k.stride(0), v.stride(0), heads * D]
    strides += [grad.stride(1), q.stride(1), k.stride(1), v.stride(1)]
    sizes = T, D, D**-0.5 * LOG2E, D**-0.5
    blocks = blocks_of("query", q)
    _query_kernel[(triton.cdiv(T, blocks["BLOCK_Q"]), heads)](
        grad, q, k, v, end, spine_offsets, spine, out, lse, grad_q, delta, *strides, *sizes, TILE=tile, **blocks
    )
    blocks = blocks_of("near", q)
    _near_kernel[(triton.cdiv(T, blocks["BLOCK_K"]), heads)](
        grad, q, k, v, end, lse, delta, grad_k, grad_v, *strides, *sizes, TILE=tile, CHUNK=chunk, **blocks
    )
    if len(wide) > 0:
        part_k, part_v = (q.new_empty(len(wide), heads, D, dtype=torch.float32) for _ in range(2))
        _far_kernel[(len(wide_offsets) - 1, heads)](
            grad, q, k, v, end, wide_offsets, wide, lse, delta, part_k, part_v, *strides, *sizes,
            TILE=tile, CHUNK=chunk, **blocks_of("far", q),
        )  # fmt: skip
        _sum_kernel[(len(sum_key), triton.cdiv(heads * D, 128))](
            part_k, part_v, sum_key, sum_offsets, sum_row, grad_k, grad_v, heads * D, ROWS=64, BLOCK_D=128, num_warps=4
        )
    return grad_q, grad_k, grad_v
