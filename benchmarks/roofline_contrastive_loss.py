"""What a GPU's datasheet allows the contrastive loss, and what its kernels move and launch, counted without a GPU.

python -m benchmarks.roofline_contrastive_loss          # the tables of docs/performance.md
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fgclip_fast.cost.rules import cost_of
from fgclip_fast.kernels import (
    contrastive_engine as engine,
    contrastive_gradient,
    contrastive_lse,
    contrastive_tuning as tuning,
)
from fgclip_fast.kernels.contrastive_side import Side
from fgclip_fast.ops.contrastive_engine import mean_loss


class Card(NamedTuple):
    name: str
    arch: int
    flops: float
    """bf16 on tensor cores, dense, per second."""
    bandwidth: float
    """Of its memory, bytes per second."""


CARDS = (
    Card("H100 SXM", 90, 989e12, 3.35e12),  # NVIDIA H100 datasheet
    Card("H200 SXM", 90, 989e12, 4.8e12),  # NVIDIA H200 datasheet
    Card("B200", 100, 2.25e15, 8e12),  # NVIDIA DGX B200 datasheet, an eighth of the system
)
N, BUDGET, BF16, FP32 = 65536, 2**30, 2, 4


def least_bytes(D: int) -> int:
    """Both embeddings read once, both gradients written once."""
    return 4 * N * D * BF16


def tiles_of(card: Card, D: int) -> tuple[tuning.Tile, tuning.Tile]:
    """The tiles of both passes that are taken without timing."""
    rows = torch.empty(N, D, dtype=torch.bfloat16, device="meta")
    side = Side(rows, rows[:, 0], rows, rows[:, 0], None)
    target = tuning.TARGETS[card.arch]
    return tuple(tiles(target, side, side, "ieee")[0] for tiles in (tuning.lse_tiles, tuning.gradient_tiles))


def lse_pass(card: Card, D: int) -> tuple[float, float]:
    """Bytes of the sums of tiles, written and read, with the embeddings read once; bytes that leave the L2 cache."""
    tile, _ = tiles_of(card, D)
    sums = 2 * FP32 * N * (N // tile.block_m + N // tile.block_n)
    return 2 * N * D * BF16 + sums, _operands(tile, D)


def gradient_pass(card: Card, D: int) -> tuple[float, float]:
    """The same: the logits' gradient written once, read twice; the texts and their gradient once a stripe."""
    _, tile = tiles_of(card, D)
    stripes = -(-N // tuning.rows_that_fit(BUDGET, N * BF16, N, tile.block_m))
    images = N * D * (2 * BF16 + FP32)  # read by two products; their gradient written
    texts = stripes * N * D * (2 * BF16 + 2 * FP32)  # read by two products; their gradient read and written
    return images + texts + 3 * BF16 * N * N, _operands(tile, D)


def _operands(tile: tuning.Tile, D: int) -> float:
    return (N / tile.block_m) * (N / tile.block_n) * (tile.block_m + tile.block_n) * D * BF16


class Launches(TorchDispatchMode):
    """Counts what torch would launch, an operation that is neither a view nor bare memory, and times both."""

    count, seconds = 0, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = time.perf_counter()
        result = func(*args, **kwargs or {})
        self.count += cost_of(func, args, kwargs or {}, result).launches > 0
        self.seconds += time.perf_counter() - start
        return result


def _without_kernels(stack: ExitStack, launched: Callable[[], None]) -> None:
    """Replace each kernel by a call of ``launched``, and each product by one that stores nothing."""

    class Kernel:
        def __getitem__(self, grid: Any) -> Any:
            return lambda *args, **options: launched()

    for module in (contrastive_lse, contrastive_gradient):
        kernels = {name: Kernel() for name, value in vars(module).items() if hasattr(value, "arg_names")}
        stack.enter_context(mock.patch.multiple(module, **kernels))
    stack.enter_context(mock.patch.object(engine, "product_", lambda out, a, b, add=False: torch.mm(a, b)))


def _loss(pairs: int, D: int, dtype: torch.dtype) -> None:
    """Compute the loss and its gradients of tensors without values."""
    image, text = (torch.empty(pairs, D, dtype=dtype, device="meta") for _ in range(2))
    rows, columns, positive, _ = engine.whole(image, text, torch.empty((), device="meta"), None, [True] * 3, BUDGET)
    mean_loss(rows, columns, positive)


def counted_launches(pairs: int, D: int, dtype: torch.dtype) -> int:
    """Launches of a loss with its gradients: our kernels, cuBLAS's products and torch's own, a library's as one."""
    own: list[int] = []
    with ExitStack() as stack:
        _without_kernels(stack, lambda: own.append(1))
        torchs = stack.enter_context(Launches())
        _loss(pairs, D, dtype)
    return len(own) + torchs.count


def python_milliseconds(pairs: int, D: int, dtype: torch.dtype) -> float:
    """Time that the host spends on a loss around the launches, our kernels' and torch's, which are not in it."""
    times = []
    with ExitStack() as stack:
        _without_kernels(stack, lambda: None)
        for _ in range(20):
            start = time.perf_counter()
            with Launches() as torchs:
                _loss(pairs, D, dtype)
            times.append(time.perf_counter() - start - torchs.seconds)
    return 1e3 * min(times)


def main() -> None:
    print(f"N = {N}, bf16, forward and backward; GB, ms\n")
    print("| card | D | TFLOP | at the datasheet's peak | least bytes | at the datasheet's bandwidth | measured |")
    print("|---|---|---|---|---|---|---|")
    for card in CARDS:
        for D in (512, 768):
            flops = 4 * 2 * N * N * D
            compute, memory = 1e3 * flops / card.flops, 1e3 * least_bytes(D) / card.bandwidth
            print(f"| {card.name} | {D} | {flops / 1e12:.1f} | {compute:.1f} ms | {least_bytes(D) / 1e9:.2f} GB "
                  f"| {memory:.2f} ms | |")  # fmt: skip
    print(
        "\n| card | D | pass | tile | from memory | at the datasheet's bandwidth | operands, within the L2 | measured |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for card in CARDS:
        for D in (512, 768):
            for name, count, tile in zip(
                ("log-sum-exps", "gradients"), (lse_pass, gradient_pass), tiles_of(card, D), strict=True
            ):
                memory, cache = count(card, D)
                print(f"| {card.name} | {D} | {name} | {tile.block_m} × {tile.block_n} | {memory / 1e9:.1f} GB "
                      f"| {1e3 * memory / card.bandwidth:.1f} ms | {cache / 1e9:.0f} GB | |")  # fmt: skip
    print(f"\nexponentials: 2 a logit, {2 * N * N / 1e9:.1f}e9")
    print("\n| pairs | dtype | launches | Python around them, ms |\n|---|---|---|---|")
    for pairs, dtype in ((512, torch.float32), (4096, torch.float32), (8192, torch.bfloat16), (N, torch.bfloat16),
                         (2 * N, torch.bfloat16)):  # fmt: skip
        counted, host = counted_launches(pairs, 768, dtype), python_milliseconds(pairs, 768, dtype)
        print(f"| {pairs} | {str(dtype).removeprefix('torch.')} | {counted} | {host:.1f} |")


if __name__ == "__main__":
    main()
