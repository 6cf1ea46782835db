"""Gradients of the contrastive loss: a stripe of the logits' gradient at a time, then cuBLAS products over it.

A stripe is some rows and all columns. One kernel multiplies a tile, turns the logits into their gradient and stores it
in the dtype of the inputs; neither products nor logits are stored. The products that follow sum over the whole stripe.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from fgclip_fast.kernels import contrastive_tuning as tuning
from fgclip_fast.kernels.contrastive_lse import shares
from fgclip_fast.kernels.contrastive_side import Side, precision_of
from fgclip_fast.kernels.contrastive_tile import LOG2_E, _logits, _shift, _tile, _without
from fgclip_fast.kernels.lse import Lse


@triton.jit
def _gradient_kernel(
    rows, columns, weights,                              # [B, D], [N, D], [B, N]: pointers or TMA descriptors
    row_inverse_ptr, row_share_ptr, row_maximum_ptr, row_log_ptr, row_gain_ptr, row_ids_ptr,                 # [B]
    column_inverse_ptr, column_share_ptr, column_maximum_ptr, column_log_ptr, column_gain_ptr, column_ids_ptr,  # [N]
    scale_ptr, online_ptr, scale_sum_ptr,                # [], [], [tiles of columns, B]
    row_stride, column_stride, weight_stride, first, B, N,
    D: tl.constexpr, ONLINE: tl.constexpr, HAS_IDS: tl.constexpr, EVEN: tl.constexpr,
    PRECISION: tl.constexpr, TMA: tl.constexpr, WARP_SPECIALIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    factor = tl.load(scale_ptr) * LOG2_E
    shift = _shift(factor)
    tiles_m, tiles_n = tl.cdiv(B, BLOCK_M), tl.cdiv(N, BLOCK_N)
    # Of the two launches for a stripe, the one that fits the flag does the work.
    items = tl.where((tl.load(online_ptr) != 0) == ONLINE, tiles_m * tiles_n, 0)
    for item in tl.range(tl.program_id(0), items, tl.num_programs(0), warp_specialize=WARP_SPECIALIZE):
        tile_m, tile_n = _tile(item, tiles_m, tiles_n)
        start_m, start_n = tile_m * BLOCK_M, tile_n * BLOCK_N
        m, n = start_m + tl.arange(0, BLOCK_M), start_n + tl.arange(0, BLOCK_N)
        logits = _logits(rows, columns, row_inverse_ptr, column_inverse_ptr, factor, start_m, start_n,
                         row_stride, column_stride, B, N, D, TMA, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION)  # fmt: skip
        # Probability in the row plus probability in the column, less 2 for the pair itself.
        if ONLINE:
            row_maximum = tl.load(row_maximum_ptr + m, mask=m < B, other=0.0)
            row_log = tl.load(row_log_ptr + m, mask=m < B, other=0.0)
            column_maximum = tl.load(column_maximum_ptr + n, mask=n < N, other=0.0)
            column_log = tl.load(column_log_ptr + n, mask=n < N, other=0.0)
            grad = tl.exp2(logits - row_maximum[:, None] - row_log[:, None])
            grad += tl.exp2(logits - column_maximum[None, :] - column_log[None, :])
        else:
            row_share = tl.load(row_share_ptr + m, mask=m < B, other=0.0)
            column_share = tl.load(column_share_ptr + n, mask=n < N, other=0.0)
            grad = tl.exp2(logits - shift) * (row_share[:, None] + column_share[None, :])
        grad = tl.where(n[None, :] == (m + first)[:, None], grad - 2.0, grad)
        grad = _without(grad, m, n, first, 0.0, row_ids_ptr, column_ids_ptr, B, N, EVEN, HAS_IDS)
        # The scale's share of a row in these columns, summed over all stripes.
        sum_at = scale_sum_ptr + tile_n.to(tl.int64) * B + m
        tl.store(sum_at, tl.load(sum_at, mask=m < B, other=0.0) + tl.sum(grad * logits, 1), mask=m < B)
        row_gain = tl.load(row_gain_ptr + m, mask=m < B, other=0.0)
        column_gain = tl.load(column_gain_ptr + n, mask=n < N, other=0.0)
        grad = grad * row_gain[:, None] * column_gain[None, :]
        if TMA:
            weights.store([start_m, start_n], grad.to(weights.dtype))
        else:
            at = weights + m.to(tl.int64)[:, None] * weight_stride + n[None, :]
            tl.store(at, grad.to(weights.dtype.element_ty), mask=(m < B)[:, None] & (n < N)[None, :])


def gradients(
    rows: Side, columns: Side, row_lse: Lse, column_lse: Lse, scale: Tensor, first: int, memory: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield stripes of ``softmax over rows + softmax over columns - 2 on the diagonal``, times the gains.

    A stripe takes up to ``memory`` bytes, or as many as one row of tiles needs.

    Yields:
        The rows of the stripe; its weights, [rows, N], which the next stripe overwrites; and the sum of gradients
        times logits over all stripes so far, in parts, a Tensor of any shape.
    """
    target, precision = tuning.target_of(scale.device), precision_of(rows.embedding)
    (B, D), N = rows.embedding.shape, len(columns.embedding)
    online = torch.zeros((), dtype=torch.int32, device=scale.device)
    row_share, column_share = (shares(lse, scale, online) for lse in (row_lse, column_lse))
    config = tuning.gradient_tiles(target, rows, columns, precision)[0]
    stride = -(-N // 16) * 16  # so that every row begins where TMA and cuBLAS like it
    R = tuning.rows_that_fit(memory, stride * rows.embedding.dtype.itemsize, B, config.block_m)
    stored = torch.empty(R, stride, dtype=rows.embedding.dtype, device=scale.device)
    launches = (False, config), (True, tuning.online_tile(config))
    scale_sums = scale.new_zeros(triton.cdiv(N, min(tile.block_n for _, tile in launches)), R)
    theirs = column_share, *column_lse, columns.gain, columns.ids
    for top in range(0, B, R):
        span = slice(top, min(top + R, B))
        own, size = rows.part(span), span.stop - top
        mine = row_share[span], row_lse.maximum[span], row_lse.log[span], own.gain, own.ids
        weights = stored[:size, :N]
        for with_maxima, tile in launches:
            operands = tile.operand(own.embedding, tile.block_m), tile.operand(columns.embedding, tile.block_n)
            _gradient_kernel[(tuning.programs(tile, scale.device, size, N),)](
                *operands, tile.result(weights), own.inverse, *mine, columns.inverse, *theirs,
                scale, online, scale_sums,
                own.embedding.stride(0), columns.embedding.stride(0), stride, first + top, size, N, D=D,
                ONLINE=with_maxima, HAS_IDS=own.ids is not None,
                EVEN=size % tile.block_m == 0 and N % tile.block_n == 0, PRECISION=precision, **tile.launch(),
            )  # fmt: skip
        yield span, weights, scale_sums


def product_(out: Tensor, a: Tensor, b: Tensor, add: bool = False) -> None:
    """Compute ``out (+)= a @ b``, summed and stored in fp32 whatever the operands."""
    if a.dtype == out.dtype:
        out.addmm_(a, b, beta=int(add))
    elif out.is_cuda:
        torch.addmm(out, a, b, beta=int(add), out_dtype=out.dtype, out=out)
    else:  # where the interpreter runs there is no such product
        out.addmm_(a.to(out.dtype), b.to(out.dtype), beta=int(add))
