"""Log-sum-exps of the contrastive loss's logits, by kernels with the product inside.

Rows may have any length: a product of raw bf16 rows is exact, and the factors that normalise them come after it
(``rows · columns * row_inverse * column_inverse``). Logits are in base 2, ``scale * log2(e) * cosine``, so they lie
within ± ``scale * log2(e)``. From that bound comes one shift for all of them: a logit's exponential serves its row and
its column, and sums can be added up in any order without a maximum. At a scale above 62 the exponentials of a row or a
column, all far from the bound, can underflow. A flag on the device then lets the same passes run again with maxima;
where it is not set these are empty launches, so that the host need not wait. Nothing is added up by atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fgclip_fast.kernels import contrastive_tuning as tuning
from fgclip_fast.kernels.contrastive_side import Side, precision_of
from fgclip_fast.kernels.contrastive_tile import LOG2_E, LOWEST_SUM, _dots, _logits, _shift, _tile, _without
from fgclip_fast.kernels.lse import Lse

# Initial value of a running maximum: below every logit, yet finite, so that a difference of two maxima is a number.
LOWEST = tl.constexpr(-1e30)
SMALLEST = tl.constexpr(2.0**-126)  # normal fp32 number


@triton.jit
def _lse_kernel(
    rows, columns,                                               # [B, D], [N, D]: pointers or TMA descriptors
    row_inverse_ptr, column_inverse_ptr,                         # [B], [N]: 1 / length
    row_ids_ptr, column_ids_ptr, scale_ptr, online_ptr,          # [B], [N], [], []
    row_maximum_ptr, row_sum_ptr,        # [tiles of columns, B]; maxima only if ONLINE
    column_maximum_ptr, column_sum_ptr,  # [tiles of rows, N]
    row_stride, column_stride, first, B, N,
    D: tl.constexpr, ONLINE: tl.constexpr, WITH_COLUMNS: tl.constexpr, HAS_IDS: tl.constexpr, EVEN: tl.constexpr,
    PRECISION: tl.constexpr, TMA: tl.constexpr, WARP_SPECIALIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    factor = tl.load(scale_ptr) * LOG2_E
    shift = _shift(factor)
    tiles_m, tiles_n = tl.cdiv(B, BLOCK_M), tl.cdiv(N, BLOCK_N)
    items = tiles_m * tiles_n
    if ONLINE:
        items = tl.where(tl.load(online_ptr) != 0, items, 0)
    for item in tl.range(tl.program_id(0), items, tl.num_programs(0), warp_specialize=WARP_SPECIALIZE):
        tile_m, tile_n = _tile(item, tiles_m, tiles_n)
        start_m, start_n = tile_m * BLOCK_M, tile_n * BLOCK_N
        m, n = start_m + tl.arange(0, BLOCK_M), start_n + tl.arange(0, BLOCK_N)
        logits = _logits(rows, columns, row_inverse_ptr, column_inverse_ptr, factor, start_m, start_n,
                         row_stride, column_stride, B, N, D, TMA, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION)  # fmt: skip
        row_at, column_at = tile_n.to(tl.int64) * B + m, tile_m.to(tl.int64) * N + n
        if ONLINE:
            logits = _without(logits, m, n, first, -float("inf"), row_ids_ptr, column_ids_ptr, B, N, EVEN, HAS_IDS)
            highest = tl.maximum(tl.max(logits, 1), LOWEST)
            tl.store(row_maximum_ptr + row_at, highest, mask=m < B)
            tl.store(row_sum_ptr + row_at, tl.sum(tl.exp2(logits - highest[:, None]), 1), mask=m < B)
            if WITH_COLUMNS:
                highest = tl.maximum(tl.max(logits, 0), LOWEST)
                tl.store(column_maximum_ptr + column_at, highest, mask=n < N)
                tl.store(column_sum_ptr + column_at, tl.sum(tl.exp2(logits - highest[None, :]), 0), mask=n < N)
        else:
            exponentials = tl.exp2(logits - shift)
            exponentials = _without(exponentials, m, n, first, 0.0, row_ids_ptr, column_ids_ptr, B, N, EVEN, HAS_IDS)
            tl.store(row_sum_ptr + row_at, tl.sum(exponentials, 1), mask=m < B)
            if WITH_COLUMNS:
                tl.store(column_sum_ptr + column_at, tl.sum(exponentials, 0), mask=n < N)


@triton.jit
def _total_kernel(
    maximum_ptr, sum_ptr,            # [P, X]: of tiles
    lse_maximum_ptr, lse_log_ptr,    # [X]: joined with what stands there, if BEGUN
    scale_ptr, online_ptr, P, X,
    ONLINE: tl.constexpr, BEGUN: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    x = tl.program_id(0) * BLOCK_X + tl.arange(0, BLOCK_X)
    inside = x < X
    if ONLINE:
        runs = tl.load(online_ptr) != 0
        P, inside = tl.where(runs, P, 0), inside & runs
    highest = (
        tl.full([BLOCK_X], LOWEST, tl.float32)
        if ONLINE
        else _shift(tl.load(scale_ptr) * LOG2_E) + tl.zeros([BLOCK_X], tl.float32)
    )
    total = tl.zeros([BLOCK_X], tl.float32)
    if BEGUN:
        begun = tl.load(lse_maximum_ptr + x, mask=inside, other=0.0)
        if ONLINE:
            highest = begun
        total = tl.exp2(tl.load(lse_log_ptr + x, mask=inside, other=0.0)) * tl.exp2(begun - highest)
    for start in range(0, P, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        at, mask = p.to(tl.int64)[:, None] * X + x[None, :], (p < P)[:, None] & inside[None, :]
        sums = tl.load(sum_ptr + at, mask=mask, other=0.0)
        if ONLINE:
            maxima = tl.load(maximum_ptr + at, mask=mask, other=LOWEST)
            raised = tl.maximum(highest, tl.max(maxima, 0))
            total = total * tl.exp2(highest - raised) + tl.sum(sums * tl.exp2(maxima - raised[None, :]), 0)
            highest = raised
        else:
            total += tl.sum(sums, 0)
    # Whole powers of two join the shift, which is whole too: a logarithm near 0 has more digits than one near 100.
    power = tl.zeros_like(total) if ONLINE else tl.floor(tl.log2(tl.maximum(total, SMALLEST)))
    tl.store(lse_maximum_ptr + x, highest + power, mask=inside)
    tl.store(lse_log_ptr + x, tl.log2(total * tl.exp2(-power)), mask=inside)


@triton.jit
def _share_kernel(maximum_ptr, log_ptr, scale_ptr, share_ptr, online_ptr, X, BLOCK_X: tl.constexpr):  # [X], …, [X], []
    """What a shifted exponential is multiplied with to be a probability; sets the flag where a sum is not trusted."""
    x = tl.program_id(0) * BLOCK_X + tl.arange(0, BLOCK_X)
    shift = _shift(tl.load(scale_ptr) * LOG2_E)
    maximum = tl.load(maximum_ptr + x, mask=x < X, other=0.0) - shift  # exact: both are whole numbers
    log = tl.load(log_ptr + x, mask=x < X, other=float("inf"))
    tl.store(share_ptr + x, tl.exp2(-maximum - log), mask=x < X)
    doubtful = (maximum + log >= LOWEST_SUM) == 0  # a NaN too
    if tl.max(doubtful.to(tl.int32), 0) != 0:
        tl.store(online_ptr, 1)  # the same value from every program


@triton.jit
def _positive_kernel(
    rows_ptr, columns_ptr, row_inverse_ptr, column_inverse_ptr, scale_ptr, positive_ptr,  # [B, D], [N, D], …, [B]
    row_stride, column_stride, first, B, N, D: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The rows' own logits, from a product of the same kind as all others."""
    start = tl.program_id(0) * BLOCK
    dots = _dots(rows_ptr, columns_ptr, start, first + start, row_stride, column_stride, B, N, D, False,
                 BLOCK, BLOCK, BLOCK_K, PRECISION)  # fmt: skip
    here = tl.arange(0, BLOCK)
    own = tl.sum(tl.where(here[:, None] == here[None, :], dots, 0.0), 1)
    m = start + here
    row_inverse = tl.load(row_inverse_ptr + m, mask=m < B, other=0.0)
    column_inverse = tl.load(column_inverse_ptr + first + m, mask=m < B, other=0.0)
    tl.store(positive_ptr + m, own * (row_inverse * (tl.load(scale_ptr) * LOG2_E)) * column_inverse, mask=m < B)


def statistics(
    rows: Side, columns: Side, scale: Tensor, first: int, with_columns: bool, memory: int
) -> tuple[Lse, Lse, Tensor]:
    """Compute the log-sum-exps of rows and, ``with_columns``, of columns, and each row's own logit; one product.

    The sums of tiles take up to ``memory`` bytes, or as many as one row of tiles needs.
    """
    precision = precision_of(rows.embedding)
    configs = tuning.lse_tiles(tuning.target_of(scale.device), rows, columns, precision)
    row_lse, column_lse = (Lse(*side.inverse.new_empty(2, len(side.inverse))) for side in (rows, columns))
    online = torch.zeros((), dtype=torch.int32, device=scale.device)

    def run(config: tuning.Tile, with_maxima: bool = False) -> None:
        _pass(
            rows,
            columns,
            scale,
            first,
            with_columns,
            memory,
            config,
            precision,
            row_lse,
            column_lse,
            online,
            with_maxima,
        )

    config = tuning.fastest(configs, f"{tuning.key_of(rows, columns)} {precision} {with_columns}", run, like=scale)
    run(config)
    shares(row_lse, scale, online)
    if with_columns:
        shares(column_lse, scale, online)
    run(tuning.online_tile(config), with_maxima=True)
    return row_lse, column_lse, _positive(rows, columns, scale, first, precision)


def _pass(
    rows: Side, columns: Side, scale: Tensor, first: int, with_columns: bool, memory: int, config: tuning.Tile,
    precision: str, row_lse: Lse, column_lse: Lse, online: Tensor, with_maxima: bool,
) -> None:  # fmt: skip
    (B, D), N = rows.embedding.shape, len(columns.embedding)
    tiles_n = triton.cdiv(N, config.block_n)
    R = tuning.rows_that_fit(memory, 8 * (tiles_n + N / config.block_m), B, config.block_m)
    row_sums = scale.new_empty(2, tiles_n * R)
    column_sums = scale.new_empty(2, triton.cdiv(R, config.block_m), N if with_columns else 0)
    theirs = config.operand(columns.embedding, config.block_n)
    for top in range(0, B, R):
        own = rows.part(slice(top, top + R))
        size = len(own.embedding)
        mine = config.operand(own.embedding, config.block_m)
        _lse_kernel[(tuning.programs(config, scale.device, size, N),)](
            mine, theirs, own.inverse, columns.inverse, own.ids, columns.ids, scale, online,
            *row_sums, *column_sums, own.embedding.stride(0), columns.embedding.stride(0), first + top, size, N, D=D,
            ONLINE=with_maxima, WITH_COLUMNS=with_columns, HAS_IDS=own.ids is not None,
            EVEN=size % config.block_m == 0 and N % config.block_n == 0, PRECISION=precision, **config.launch(),
        )  # fmt: skip
        lse = Lse(*(part[top : top + R] for part in row_lse))
        _total(row_sums[0], row_sums[1], lse, scale, online, tiles_n, size, with_maxima, begun=False)
        if with_columns:
            tiles_m = triton.cdiv(size, config.block_m)
            sums = column_sums[0], column_sums[1]
            _total(*sums, column_lse, scale, online, tiles_m, N, with_maxima, begun=top > 0)


def _total(
    maximum: Tensor,
    total: Tensor,
    lse: Lse,
    scale: Tensor,
    online: Tensor,
    P: int,
    X: int,
    with_maxima: bool,
    begun: bool,
) -> None:
    _total_kernel[(triton.cdiv(X, 128),)](
        maximum, total, *lse, scale, online, P, X, ONLINE=with_maxima, BEGUN=begun, BLOCK_P=16, BLOCK_X=128
    )


def shares(lse: Lse, scale: Tensor, online: Tensor) -> Tensor:
    """Compute what turns a shifted exponential into a probability, Tensor[X]; sets ``online`` where it may be wrong."""
    share, X = torch.empty_like(lse.log), len(lse.log)
    _share_kernel[(triton.cdiv(X, 512),)](*lse, scale, share, online, X, BLOCK_X=512)
    return share


def _positive(rows: Side, columns: Side, scale: Tensor, first: int, precision: str) -> Tensor:
    (B, D), N = rows.embedding.shape, len(columns.embedding)
    positive = torch.empty_like(rows.inverse)
    inputs = rows.embedding, columns.embedding, rows.inverse, columns.inverse, scale, positive
    strides = rows.embedding.stride(0), columns.embedding.stride(0)
    _positive_kernel[(triton.cdiv(B, 32),)](
        *inputs, *strides, first, B, N, D=D, PRECISION=precision, BLOCK=32, BLOCK_K=32
    )
    return positive
