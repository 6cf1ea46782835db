"""Kernels of the contrastive loss: log-sum-exps with the product inside, gradients between cuBLAS products.

Rows may have any length: a product of raw bf16 rows is exact, and the factors that normalise them come after it
(``rows · columns * row_inverse * column_inverse``). Logits are in base 2, ``scale * log2(e) * cosine``, and
log-sum-exps have two parts, a maximum and the logarithm of a sum. Nothing is added up by atomics.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fgclip_fast.kernels import contrastive_tuning as tuning
from fgclip_fast.kernels.launch import rows as rows_of
from fgclip_fast.kernels.lse import Lse

LOG2_E = tl.constexpr(math.log2(math.e))
# Initial value of a running maximum: below every logit, yet finite, so that a difference of two maxima is a number.
LOWEST = tl.constexpr(-1e30)
# fp16 loss scale of each side. Gradients of logits lie in [-2, 2]; times 2^7 for the row and 2^7 for the column they
# stay below 65504, the largest fp16 number, and those above 2^-28 stay normal numbers.
FP16_LOSS_SCALE = 2.0**7


@triton.jit
def _dots(rows_ptr, columns_ptr, m, n, row_stride, column_stride, B, N, D,
          BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    dots = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    row_at = rows_ptr + m.to(tl.int64)[:, None] * row_stride
    column_at = columns_ptr + n.to(tl.int64)[None, :] * column_stride
    for start in range(0, D, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        rows = tl.load(row_at + k[None, :], mask=(m < B)[:, None] & (k < D)[None, :], other=0.0)
        columns = tl.load(column_at + k[:, None], mask=(n < N)[None, :] & (k < D)[:, None], other=0.0)
        dots = tl.dot(rows, columns, dots, input_precision=PRECISION)
    return dots


@triton.jit
def _left_out(m, n, own, row_ids_ptr, column_ids_ptr, B, N, HAS_IDS: tl.constexpr):
    """Outside the matrix, or another text of the same id."""
    out = (m >= B)[:, None] | (n >= N)[None, :]
    if HAS_IDS:
        row_ids = tl.load(row_ids_ptr + m, mask=m < B, other=0)
        column_ids = tl.load(column_ids_ptr + n, mask=n < N, other=0)
        out = out | ((row_ids[:, None] == column_ids[None, :]) & (own == 0))
    return out


@triton.jit
def _lse_kernel(
    rows_ptr, columns_ptr, row_inverse_ptr, column_inverse_ptr,  # [B, D], [N, D], [B], [N]: 1 / length
    row_ids_ptr, column_ids_ptr, scale_ptr,                      # [B], [N], []
    row_maximum_ptr, row_sum_ptr,        # [N / SPAN_N, B]
    column_maximum_ptr, column_sum_ptr,  # [B / SPAN_M, N]
    positive_ptr,                        # [B]
    row_stride, column_stride, first, B, N, D,
    SPAN_M: tl.constexpr, SPAN_N: tl.constexpr, WITH_COLUMNS: tl.constexpr, HAS_IDS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # This program's span of rows and of columns, and its own line of each array of partial sums.
    first_m, first_n = tl.program_id(0) * SPAN_M, tl.program_id(1) * SPAN_N
    row_maximum_ptr += tl.program_id(1).to(tl.int64) * B
    row_sum_ptr += tl.program_id(1).to(tl.int64) * B
    column_maximum_ptr += tl.program_id(0).to(tl.int64) * N
    column_sum_ptr += tl.program_id(0).to(tl.int64) * N
    factor = tl.load(scale_ptr) * LOG2_E
    for start_n in range(first_n, tl.minimum(first_n + SPAN_N, N), BLOCK_N):
        for start_m in range(first_m, tl.minimum(first_m + SPAN_M, B), BLOCK_M):
            # A tile of logits; columns that do not count are minus infinity.
            m, n = start_m + tl.arange(0, BLOCK_M), start_n + tl.arange(0, BLOCK_N)
            dots = _dots(rows_ptr, columns_ptr, m, n, row_stride, column_stride, B, N, D,
                         BLOCK_M, BLOCK_N, BLOCK_K, PRECISION)  # fmt: skip
            row_factor = tl.load(row_inverse_ptr + m, mask=m < B, other=0.0) * factor
            column_inverse = tl.load(column_inverse_ptr + n, mask=n < N, other=0.0)
            own = n[None, :] == (m + first)[:, None]
            logits = dots * row_factor[:, None] * column_inverse[None, :]
            logits = tl.where(_left_out(m, n, own, row_ids_ptr, column_ids_ptr, B, N, HAS_IDS), -float("inf"), logits)
            # Tiles on the diagonal hold the rows' own logits.
            if (start_n < start_m + BLOCK_M + first) & (start_m + first < start_n + BLOCK_N):
                positive = tl.sum(tl.where(own, logits, 0.0), 1)
                owned_here = (m < B) & (m + first >= start_n) & (m + first < start_n + BLOCK_N)
                tl.store(positive_ptr + m, positive, mask=owned_here)
            # Add the tile to the sums so far, which other threads of this program may have stored.
            tl.debug_barrier()
            _add_to_sums(row_maximum_ptr + m, row_sum_ptr + m, m < B, start_n > first_n, logits, 1)
            if WITH_COLUMNS:
                _add_to_sums(column_maximum_ptr + n, column_sum_ptr + n, n < N, start_m > first_m, logits, 0)


@triton.jit
def _add_to_sums(maximum_ptr, sum_ptr, inside, begun, logits, AXIS: tl.constexpr):
    """Sums of a tile's exponentials along ``AXIS`` join those so far, relative to the maximum of both."""
    old_maximum = tl.load(maximum_ptr, mask=inside & begun, other=LOWEST)
    old_sum = tl.load(sum_ptr, mask=inside & begun, other=0.0)
    maximum = tl.maximum(old_maximum, tl.max(logits, AXIS))
    total = old_sum * tl.exp2(old_maximum - maximum) + tl.sum(tl.exp2(logits - tl.expand_dims(maximum, AXIS)), AXIS)
    tl.store(maximum_ptr, maximum, mask=inside)
    tl.store(sum_ptr, total, mask=inside)


@triton.jit
def _gradient_kernel(
    dots_ptr, weights_ptr, scale_ptr, scale_sum_ptr,   # [R, C], [R, C] (may be the same), [], [programs]
    row_inverse_ptr, row_maximum_ptr, row_log_ptr, row_gain_ptr, row_ids_ptr,                 # [R]
    column_inverse_ptr, column_maximum_ptr, column_log_ptr, column_gain_ptr, column_ids_ptr,  # [C]
    first, R, C, HAS_IDS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # Statistics of this tile's rows and columns.
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    at = m[:, None] * C + n[None, :]  # a chunk has fewer than 2**31 elements
    inside = (m < R)[:, None] & (n < C)[None, :]
    row_inverse = tl.load(row_inverse_ptr + m, mask=m < R, other=0.0)
    row_maximum = tl.load(row_maximum_ptr + m, mask=m < R, other=0.0)
    row_log = tl.load(row_log_ptr + m, mask=m < R, other=0.0)
    row_gain = tl.load(row_gain_ptr + m, mask=m < R, other=0.0)
    column_inverse = tl.load(column_inverse_ptr + n, mask=n < C, other=0.0)
    column_maximum = tl.load(column_maximum_ptr + n, mask=n < C, other=0.0)
    column_log = tl.load(column_log_ptr + n, mask=n < C, other=0.0)
    column_gain = tl.load(column_gain_ptr + n, mask=n < C, other=0.0)
    # Logits from the products, rounded as in the other kernel, and their gradient.
    own = n[None, :] == (m + first)[:, None]
    dots = tl.load(dots_ptr + at, mask=inside, other=0.0)
    factor = tl.load(scale_ptr) * LOG2_E
    logits = dots * (row_inverse * factor)[:, None] * column_inverse[None, :]
    by_row = tl.exp2(logits - row_maximum[:, None] - row_log[:, None])
    by_column = tl.exp2(logits - column_maximum[None, :] - column_log[None, :])
    grad = by_row + by_column - tl.where(own, 2.0, 0.0)
    grad = tl.where(_left_out(m, n, own, row_ids_ptr, column_ids_ptr, R, C, HAS_IDS), 0.0, grad)
    # The scale's share, summed by program over all parts; then the gradients times the gains.
    program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(
        scale_sum_ptr + program,
        tl.load(scale_sum_ptr + program) + tl.sum(grad * dots * row_inverse[:, None] * column_inverse[None, :]),
    )
    weights = grad * row_gain[:, None] * column_gain[None, :]
    tl.store(weights_ptr + at, weights.to(weights_ptr.dtype.element_ty), mask=inside)


Ids = tuple[Tensor, Tensor]
"""Text ids of the rows and of the columns."""


class Side(NamedTuple):
    """Rows or columns of the logits."""

    embedding: Tensor
    """[B, D], raw."""
    inverse: Tensor
    """[B]: 1 / length, 0 for a zero row."""
    operand: Tensor
    """[B, D]: what the gradients of logits are multiplied with."""
    gain: Tensor
    """[B]: what those are multiplied with before, so that they fit the dtype."""
    ids: Tensor | None

    def part(self, span: slice) -> "Side":
        return Side._make(x if x is None else x[span] for x in self)


def side(embedding: Tensor, ids: Tensor | None) -> Side:
    """Of an fp16 side, unit rows stand in the products: 1/N times 1/length would leave its range."""
    embedding = rows_of(embedding)
    if embedding.dtype == torch.float32 and _precision() == "tf32":
        embedding = rounded_to_tf32(embedding)
    length = torch.linalg.vector_norm(embedding, dim=1, dtype=torch.float32)
    inverse = length.reciprocal().where(length > 1e-12, 0)
    operand, gain = embedding, inverse
    if embedding.dtype == torch.float16:
        operand, gain = (embedding * inverse[:, None]).half(), torch.full_like(inverse, FP16_LOSS_SCALE)
    return Side(embedding, inverse, operand, gain, ids if ids is None else ids.contiguous())


def statistics(rows: Side, columns: Side, scale: Tensor, first: int, with_columns: bool) -> tuple[Lse, Lse, Tensor]:
    """Log-sum-exp of each row and, ``with_columns``, of each column; and each row's own logit. One product."""
    B, N, dtype = len(rows.embedding), len(columns.embedding), rows.embedding.dtype
    precision = _precision() if dtype == torch.float32 else "ieee"

    def run(config: tuning.LseConfig) -> tuple[Lse, Lse, Tensor]:
        return _statistics(rows, columns, scale, first, with_columns, config, precision)

    configs = tuning.lse_configs(tuning.target_of(scale.device), dtype, precision, B, N)
    key = f"{dtype} {precision} {B}x{N}x{rows.embedding.shape[1]} {with_columns} {rows.ids is not None}"
    return run(tuning.fastest(configs, key, run, like=scale))


def _statistics(
    rows: Side, columns: Side, scale: Tensor, first: int, with_columns: bool, config: tuning.LseConfig, precision: str
) -> tuple[Lse, Lse, Tensor]:
    (B, D), N = rows.embedding.shape, len(columns.embedding)
    spans = triton.cdiv(B, config.span_m), triton.cdiv(N, config.span_n)
    row_sums = rows.inverse.new_empty(2, spans[1], B)
    column_sums = rows.inverse.new_empty(2, spans[0], N if with_columns else 0)
    positive = torch.empty_like(rows.inverse)
    inputs = rows.embedding, columns.embedding, rows.inverse, columns.inverse, rows.ids, columns.ids, scale
    sizes = rows.embedding.stride(0), columns.embedding.stride(0), first, B, N, D
    options = {"WITH_COLUMNS": with_columns, "HAS_IDS": rows.ids is not None, "PRECISION": precision}
    _lse_kernel[spans](
        *inputs, *row_sums.unbind(), *column_sums.unbind(), positive, *sizes, **options, **config.launch()
    )
    return _total(*row_sums), _total(*column_sums), positive


def _total(maximum: Tensor, total: Tensor) -> Lse:
    """Join the maxima and sums of all spans, both [spans, B]."""
    highest = maximum.amax(0)
    return Lse(highest, (total * (maximum - highest).exp2()).sum(0).log2())


def gradients(
    rows: Side, columns: Side, row_lse: Lse, column_lse: Lse, scale: Tensor, first: int, scale_sums: Tensor
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Part by part ``softmax over rows + softmax over columns - 2 on the diagonal``, times the gains.

    A part and its product fit the L2 cache. ``scale_sums`` adds up these gradients times their cosines.
    """
    B, N, dtype = len(rows.embedding), len(columns.embedding), rows.embedding.dtype
    R, C = tuning.part_shape(tuning.target_of(scale.device), dtype, B, N)
    dots = rows.inverse.new_empty(R * C)
    weights = dots if dtype == torch.float32 else dots.new_empty(R * C, dtype=dtype)
    for m in (slice(top, min(top + R, B)) for top in range(0, B, R)):
        for n in (slice(left, min(left + C, N)) for left in range(0, N, C)):
            shape = m.stop - m.start, n.stop - n.start
            part, out = (x[: shape[0] * shape[1]].view(shape) for x in (dots, weights))
            product_(part, rows.embedding[m], columns.embedding[n].T)
            ours = rows.part(m), Lse(row_lse.maximum[m], row_lse.log[m])
            theirs = columns.part(n), Lse(column_lse.maximum[n], column_lse.log[n])
            _gradient(part, out, scale, scale_sums, ours, theirs, first + m.start - n.start)
            yield m, n, out


def _gradient(
    dots: Tensor,
    out: Tensor,
    scale: Tensor,
    scale_sums: Tensor,
    rows: tuple[Side, Lse],
    columns: tuple[Side, Lse],
    first: int,
) -> None:
    R, C = dots.shape
    sides = [(of.inverse, *lse, of.gain, of.ids) for of, lse in (rows, columns)]
    options = {"HAS_IDS": rows[0].ids is not None, **tuning.GRADIENT_LAUNCH}
    _gradient_kernel[gradient_grid(R, C)](dots, out, scale, scale_sums, *sides[0], *sides[1], first, R, C, **options)


def gradient_grid(R: int, C: int) -> tuple[int, int]:
    """Programs of the gradient's kernel for a part of R x C logits."""
    return triton.cdiv(R, tuning.GRADIENT_LAUNCH["BLOCK_M"]), triton.cdiv(C, tuning.GRADIENT_LAUNCH["BLOCK_N"])


def product_(out: Tensor, a: Tensor, b: Tensor, add: bool = False) -> None:
    """``out (+)= a @ b``, summed and stored in fp32 whatever the operands."""
    if a.dtype == out.dtype:
        out.addmm_(a, b, beta=int(add))
    elif out.is_cuda:
        torch.addmm(out, a, b, beta=int(add), out_dtype=out.dtype, out=out)
    else:  # where the interpreter runs there is no such product
        out.addmm_(a.to(out.dtype), b.to(out.dtype), beta=int(add))


def rounded_to_tf32(x: Tensor) -> Tensor:
    """Round fp32 values to the 11 significant bits of tf32, to nearest.

    A tensor core of sm_90 truncates its operands, which biases each product by up to 2^-10, while cuBLAS may round:
    at scale 100 the logits of the two passes would differ by 0.1. Of rounded values both make the same products.
    Source: Dekker's splitting, doi 10.1007/BF01397083.
    """
    stretched = x * (2.0**13 + 1)
    return stretched - (stretched - x)


def _precision() -> str:
    """Read how torch itself multiplies fp32 on a GPU: "tf32" where the user allows it, else "ieee"."""
    # Where the user has set this option, torch.get_float32_matmul_precision raises; older versions lack the option.
    chosen = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
    if chosen is None:
        chosen = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return "tf32" if chosen == "tf32" else "ieee"
