"""Residual addition and LayerNorm on a GPU: one row a program forward, a strip of rows a program backward.

A row stays in registers between its sums and its results, so that each pass reads and writes every value once. Column
sums go through one partial row a strip, added up by torch in a fixed order: the same bits every time.
"""

import triton
import triton.language as tl
from torch import Tensor

from fgclip_fast.kernels.launch import on_own_device

MAX_STRIPS = 1024
"""Programs of the backward pass: a few for each of the 80 to 150 multiprocessors of a card."""


@triton.jit
def _forward_kernel(
    residual_ptr, update_ptr, update_bias_ptr, weight_ptr, bias_ptr,  # [rows, W] twice, [W] three times
    total_ptr, normed_ptr, statistics_ptr,                            # [rows, W] twice, [2, rows]
    rows, eps, W: tl.constexpr, BLOCK_W: tl.constexpr, HAS_UPDATE: tl.constexpr, HAS_UPDATE_BIAS: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)  # 4M rows of 512 already pass 2**31 elements
    column = tl.arange(0, BLOCK_W)
    inside = column < W
    at = r * W + column
    # The sum, as it is stored: the backward pass sees the rounded values too.
    row = tl.load(residual_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_UPDATE:
        update = tl.load(update_ptr + at, mask=inside, other=0.0).to(tl.float32)
        if HAS_UPDATE_BIAS:
            update += tl.load(update_bias_ptr + column, mask=inside, other=0.0).to(tl.float32)
        total = (row + update).to(total_ptr.dtype.element_ty)
        tl.store(total_ptr + at, total, mask=inside)
        row = total.to(tl.float32)
    # Statistics in two passes over registers, which a difference of squares would spoil.
    mean = tl.sum(row) / W
    centred = tl.where(inside, row - mean, 0.0)
    inverse = tl.rsqrt(tl.sum(centred * centred) / W + eps)
    tl.store(statistics_ptr + r, mean)
    tl.store(statistics_ptr + rows + r, inverse)
    # The normalised row.
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed_ptr + at, centred * inverse * weight + bias, mask=inside)


@triton.jit
def _backward_kernel(
    grad_total_ptr, grad_normed_ptr, total_ptr, statistics_ptr, weight_ptr, bias_ptr,  # [rows, W]; [2, rows]; [W]
    grad_residual_ptr, grad_other_ptr, normed_ptr, partial_ptr,                        # [rows, W]; [strips, 3, W]
    rows, rows_of_a_strip, W: tl.constexpr, BLOCK_W: tl.constexpr,
    HAS_GRAD_TOTAL: tl.constexpr, HAS_OTHER: tl.constexpr, HAS_NORMED: tl.constexpr,
):  # fmt: skip
    strip = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK_W)
    inside = column < W
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    if HAS_NORMED:
        bias = tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float32)
    grad_weight, grad_bias, grad_update_bias = weight * 0, weight * 0, weight * 0
    first = strip * rows_of_a_strip
    for r in range(first, tl.minimum(first + rows_of_a_strip, rows)):
        # The row's unit values and the gradient of its normalised ones.
        at = r * W + column
        row = tl.load(total_ptr + at, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_normed_ptr + at, mask=inside, other=0.0).to(tl.float32)
        mean, inverse = tl.load(statistics_ptr + r), tl.load(statistics_ptr + rows + r)
        unit = tl.where(inside, (row - mean) * inverse, 0.0)
        # The normalised row again, for the gradients of the products that read it.
        if HAS_NORMED:
            tl.store(normed_ptr + at, unit * weight + bias, mask=inside)
        # LayerNorm's derivative: what changes the mean or the length of the row is taken off.
        weighted = grad * weight
        along, across = tl.sum(weighted * unit) / W, tl.sum(weighted) / W
        whole = inverse * (weighted - across - unit * along)
        if HAS_GRAD_TOTAL:
            whole += tl.load(grad_total_ptr + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(grad_residual_ptr + at, whole, mask=inside)
        if HAS_OTHER:
            tl.store(grad_other_ptr + at, whole, mask=inside)
        # Column sums of this strip, in the order of its rows.
        grad_weight += grad * unit
        grad_bias += grad
        grad_update_bias += whole
    partial_at = partial_ptr + strip * 3 * W + column
    tl.store(partial_at, grad_weight, mask=inside)
    tl.store(partial_at + W, grad_bias, mask=inside)
    tl.store(partial_at + 2 * W, grad_update_bias, mask=inside)


@on_own_device
def forward(
    residual: Tensor,
    update: Tensor | None,
    update_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    total: Tensor | None,
    normed: Tensor,
    statistics: Tensor,
) -> None:
    """Fills ``total`` and ``normed``, [..., W], and ``statistics [2, rows]``; without an update ``total`` is None."""
    rows, W = statistics.shape[1], residual.shape[-1]
    inputs = (x if x is None else x.contiguous() for x in (residual, update, update_bias, weight, bias))
    flags = {"HAS_UPDATE": update is not None, "HAS_UPDATE_BIAS": update_bias is not None}
    _forward_kernel[(rows,)](*inputs, total, normed, statistics, rows, eps, W=W, **flags, **_block(W))


@on_own_device
def backward(
    grad_normed: Tensor,
    grad_total: Tensor | None,
    total: Tensor,
    statistics: Tensor,
    weight: Tensor,
    bias: Tensor,
    grad_residual: Tensor,
    grad_other: Tensor | None,
    normed: Tensor | None,
) -> Tensor:
    """Fill the gradients of the stream and, unless None, of the update in another dtype, and the normalised rows.

    Returns:
        Tensor[3, W], fp32: gradients of ``weight``, ``bias`` and the update's bias.
    """
    rows, W = statistics.shape[1], total.shape[-1]
    rows_of_a_strip = triton.cdiv(rows, MAX_STRIPS)
    strips = triton.cdiv(rows, rows_of_a_strip)
    partial = statistics.new_empty(strips, 3, W)
    inputs = grad_total if grad_total is None else grad_total.contiguous(), grad_normed.contiguous(), total, statistics
    parts = {"GRAD_TOTAL": grad_total, "OTHER": grad_other, "NORMED": normed}
    flags = {f"HAS_{name}": part is not None for name, part in parts.items()}
    outputs = grad_residual, grad_other, normed, partial
    _backward_kernel[(strips,)](*inputs, weight, bias, *outputs, rows, rows_of_a_strip, W=W, **flags, **_block(W))
    return partial.sum(0)


def _block(W: int) -> dict[str, int]:
    BLOCK_W = max(16, triton.next_power_of_2(W))
    return {"BLOCK_W": BLOCK_W, "num_warps": max(1, min(16, BLOCK_W // 256))}  # 8 values a thread: 16 bytes of bf16
