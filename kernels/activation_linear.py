"""Bias and activation between an MLP's two products on a GPU: one pass forward, one backward.

The backward pass turns the gradient of the activation into that of its input in place, makes the activation's output
again for the weight's gradient, and sums the bias's gradient: one partial row a strip, added up by torch in a fixed
order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fgclip_fast.kernels.launch import on_own_device

BLOCK_R, BLOCK_H = 8, 256
"""Rows and columns of a tile: 8 values a thread of 8 warps, 16 bytes of bf16 a load."""
MAX_STRIPS = 256
"""Strips of rows in the backward pass; with 8 to 16 blocks of columns they fill any card."""


@triton.jit
def _gate(x, QUICK: tl.constexpr):
    """sigmoid(1.702 x), or the normal distribution function: the activation is ``x`` times it."""
    if QUICK:
        return tl.sigmoid(1.702 * x)
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _forward_kernel(
    hidden_ptr, bias_ptr, out_ptr,  # [rows, H], [H], [rows, H]
    rows, H, QUICK: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    r = (tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)).to(tl.int64)
    column = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    inside = (r < rows)[:, None] & (column < H)[None, :]
    at = r[:, None] * H + column[None, :]
    bias = tl.load(bias_ptr + column, mask=column < H, other=0.0).to(tl.float32)
    x = tl.load(hidden_ptr + at, mask=inside, other=0.0).to(tl.float32) + bias[None, :]
    tl.store(out_ptr + at, x * _gate(x, QUICK), mask=inside)


@triton.jit
def _backward_kernel(
    grad_ptr, hidden_ptr, bias_ptr,  # [rows, H], changed in place; [rows, H], [H]
    out_ptr, partial_ptr,            # [rows, H], [strips, H]
    rows, rows_of_a_strip, H, QUICK: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    strip = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    bias = tl.load(bias_ptr + column, mask=column < H, other=0.0).to(tl.float32)
    sums = tl.zeros([BLOCK_R, BLOCK_H], tl.float32)
    first = strip * rows_of_a_strip
    last = tl.minimum(first + rows_of_a_strip, rows)
    for start in range(first, last, BLOCK_R):
        # The input again, and the share of it that the activation lets through.
        r = start + tl.arange(0, BLOCK_R)
        inside = (r < last)[:, None] & (column < H)[None, :]
        at = r[:, None] * H + column[None, :]
        x = tl.load(hidden_ptr + at, mask=inside, other=0.0).to(tl.float32) + bias[None, :]
        grad = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
        gate = _gate(x, QUICK)
        # The derivative of x * gate(x).
        if QUICK:
            slope = gate + 1.702 * x * gate * (1.0 - gate)
        else:
            slope = gate + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
        own = grad * slope
        tl.store(out_ptr + at, x * gate, mask=inside)
        tl.store(grad_ptr + at, own, mask=inside)
        sums += own
    tl.store(partial_ptr + strip * H + column, tl.sum(sums, 0), mask=column < H)


@on_own_device
def forward(hidden: Tensor, bias: Tensor, kind: str, out: Tensor) -> None:
    """Fills ``out [..., H]``."""
    H = len(bias)
    rows = out.numel() // H
    grid = triton.cdiv(rows, BLOCK_R), triton.cdiv(H, BLOCK_H)
    _forward_kernel[grid](hidden.contiguous(), bias, out, rows, H, kind == "quick_gelu", BLOCK_R, BLOCK_H, num_warps=8)


@on_own_device
def backward(grad: Tensor, hidden: Tensor, bias: Tensor, kind: str, out: Tensor) -> Tensor:
    """Changes ``grad`` into the gradient of ``hidden`` and fills ``out [..., H]``; returns the bias's gradient [H]."""
    H = len(bias)
    rows = out.numel() // H
    rows_of_a_strip = max(BLOCK_R, triton.cdiv(rows, MAX_STRIPS))
    strips = triton.cdiv(rows, rows_of_a_strip)
    partial = torch.empty(strips, H, dtype=torch.float32, device=out.device)
    grid = strips, triton.cdiv(H, BLOCK_H)
    sizes = rows, rows_of_a_strip, H, kind == "quick_gelu", BLOCK_R, BLOCK_H
    _backward_kernel[grid](grad, hidden.contiguous(), bias, out, partial, *sizes, num_warps=8)
    return partial.sum(0)
