"""Parts that the kernels of the contrastive loss share: the order of tiles, a tile's products, and who is left out."""

import math

import triton
import triton.language as tl

LOG2_E = tl.constexpr(math.log2(math.e))
GROUP = tl.constexpr(8)
"""Rows of tiles that are walked together, column by column, so that their embeddings stay in the L2 cache."""
TOP = tl.constexpr(100.0)
"""Base-2 logarithm that the largest exponential can have: with it sums of 2^27 of them are fp32 numbers."""
LOWEST_SUM = tl.constexpr(-80.0)
"""Base-2 logarithm below which a sum is not trusted. Exponentials below 2^-126 are flushed to 0, and 2^20 of those are
less than 2^-24 of such a sum."""


@triton.jit
def _shift(factor):
    """What is subtracted from all logits, which lie within ± ``factor``: a whole number, so that it costs no digits."""
    return tl.maximum(tl.ceil(tl.abs(factor)) - TOP, 0.0)


@triton.jit
def _tile(item, tiles_m, tiles_n):
    """Row and column of a tile, for neighbouring ``item`` near each other."""
    first = item // (GROUP * tiles_n) * GROUP
    rows = tl.minimum(tiles_m - first, GROUP)
    inside = item - first * tiles_n
    return first + inside % rows, inside // rows


@triton.jit
def _dots(rows, columns, start_m, start_n, row_stride, column_stride, B, N, D: tl.constexpr, TMA: tl.constexpr,
          BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Products of BLOCK_M rows and BLOCK_N columns, which are TMA descriptors or pointers; any outside the matrix."""
    dots = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if TMA:
        for k in range(0, D, BLOCK_K):
            dots = tl.dot(rows.load([start_m, k]), columns.load([start_n, k]).T, dots, input_precision=PRECISION)
    else:
        m, n = start_m + tl.arange(0, BLOCK_M), start_n + tl.arange(0, BLOCK_N)
        row_at = rows + tl.minimum(m, B - 1).to(tl.int64)[:, None] * row_stride
        column_at = columns + tl.minimum(n, N - 1).to(tl.int64)[None, :] * column_stride
        for start in range(0, D, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            if D % BLOCK_K == 0:
                a, b = tl.load(row_at + k[None, :]), tl.load(column_at + k[:, None])
            else:
                a = tl.load(row_at + k[None, :], mask=(k < D)[None, :], other=0.0)
                b = tl.load(column_at + k[:, None], mask=(k < D)[:, None], other=0.0)
            dots = tl.dot(a, b, dots, input_precision=PRECISION)
    return dots


@triton.jit
def _logits(
    rows, columns, row_inverse_ptr, column_inverse_ptr, factor, start_m, start_n, row_stride, column_stride, B, N,
    D: tl.constexpr, TMA: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Logits of a tile in base 2, ``factor`` times the cosines; 0 outside the matrix."""
    dots = _dots(rows, columns, start_m, start_n, row_stride, column_stride, B, N, D, TMA,
                 BLOCK_M, BLOCK_N, BLOCK_K, PRECISION)  # fmt: skip
    m, n = start_m + tl.arange(0, BLOCK_M), start_n + tl.arange(0, BLOCK_N)
    row_factor = tl.load(row_inverse_ptr + m, mask=m < B, other=0.0) * factor
    column_inverse = tl.load(column_inverse_ptr + n, mask=n < N, other=0.0)
    return dots * row_factor[:, None] * column_inverse[None, :]


@triton.jit
def _without(values, m, n, first, other, row_ids_ptr, column_ids_ptr, B, N, EVEN: tl.constexpr, HAS_IDS: tl.constexpr):
    """``values`` with ``other`` outside the matrix, and for other texts of the same id."""
    if not EVEN:
        values = tl.where((m < B)[:, None] & (n < N)[None, :], values, other)
    if HAS_IDS:
        row_ids = tl.load(row_ids_ptr + m, mask=m < B, other=0)
        column_ids = tl.load(column_ids_ptr + n, mask=n < N, other=0)
        own = n[None, :] == (m + first)[:, None]
        values = tl.where((row_ids[:, None] == column_ids[None, :]) & (own == 0), other, values)
    return values
