"""Join the gradients of a product's parts and sum their rows on a GPU: each value is read once and written once.

A program copies a strip of rows of one block of columns, and sums it; torch adds up the strips in a fixed order.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fgclip_fast.kernels.launch import on_own_device

BLOCK_R, BLOCK_W = 4, 256
"""Rows and columns of a tile: 8 values a thread of 4 warps, 16 bytes of bf16 a load."""
MAX_STRIPS = 512
"""Strips of rows; with the blocks of columns of a part they fill any card."""


@triton.jit
def _join_kernel(
    first_ptr, second_ptr, third_ptr,  # [rows, W]
    joint_ptr, partial_ptr,            # [rows, 3 * W], [strips, 3 * W]
    rows, rows_of_a_strip, W, BLOCK_R: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    strip = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)
    begin = strip * rows_of_a_strip
    last = tl.minimum(begin + rows_of_a_strip, rows)
    for part in tl.static_range(3):
        part_ptr = first_ptr if part == 0 else (second_ptr if part == 1 else third_ptr)
        joint_column = part * W + column
        sums = tl.zeros([BLOCK_R, BLOCK_W], tl.float32)
        for start in range(begin, last, BLOCK_R):
            # Copy a tile, and add it to the sums of its columns.
            r = start + tl.arange(0, BLOCK_R)
            inside = (r < last)[:, None] & (column < W)[None, :]
            tile = tl.load(part_ptr + r[:, None] * W + column[None, :], mask=inside, other=0.0)
            tl.store(joint_ptr + r[:, None] * (3 * W) + joint_column[None, :], tile, mask=inside)
            sums += tile.to(tl.float32)
        tl.store(partial_ptr + strip * (3 * W) + joint_column, tl.sum(sums, 0), mask=column < W)


@on_own_device
def join(joint: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Fill ``joint [..., 3 * W]`` with three contiguous parts [..., W]; return the sums of its columns, fp32."""
    W = parts[0].shape[-1]
    rows = joint.numel() // (3 * W)
    rows_of_a_strip = max(BLOCK_R, triton.cdiv(rows, MAX_STRIPS))
    strips = triton.cdiv(rows, rows_of_a_strip)
    partial = torch.empty(strips, 3 * W, dtype=torch.float32, device=joint.device)
    grid = strips, triton.cdiv(W, BLOCK_W)
    _join_kernel[grid](*parts, joint, partial, rows, rows_of_a_strip, W, BLOCK_R, BLOCK_W, num_warps=4)
    return partial.sum(0)
