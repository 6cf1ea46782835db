"""What the card attains on the simplest work of each kind; the shares of the other sections are of these."""

from collections.abc import Iterator

import torch

from benchmarks.gpu.case import Case, Figures
from benchmarks.gpu.clock import rates, times
from benchmarks.gpu.machine import asked
from benchmarks.gpu.sizes import Sizes


def cases(sizes: Sizes) -> Iterator[Case]:
    """A copy, a product in bf16 and one in fp32, and a launch that does nothing."""
    yield Case("copy", lambda: _copy(sizes))
    yield Case("product", lambda: _product(sizes, torch.bfloat16))
    yield Case("product in fp32", lambda: _product(sizes, torch.float32))
    yield Case("empty launch", lambda: _launch(sizes))
    yield Case("clocks and power during products", lambda: _under_load(sizes))


def _copy(sizes: Sizes) -> Figures:
    source, target = (torch.zeros(sizes.copied, dtype=torch.uint8, device=sizes.device) for _ in range(2))
    return rates(times(lambda: target.copy_(source), sizes), bytes=2 * sizes.copied)


def _product(sizes: Sizes, dtype: torch.dtype) -> Figures:
    # Of random numbers: of zeros a card draws less power and runs faster.
    a, b = (torch.randn(sizes.product, sizes.product, device=sizes.device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return rates(times(lambda: torch.mm(a, b, out=out), sizes), flop=2 * sizes.product**3)


def _launch(sizes: Sizes) -> Figures:
    """A hundred launches of one element, and the time of one."""
    one = torch.zeros(1, device=sizes.device)

    def run() -> None:
        for _ in range(100):
            one.zero_()

    took = times(run, sizes)
    return {name: None if ms is None else float(ms) / 100 for name, ms in took.items()}


def _under_load(sizes: Sizes) -> Figures:
    """The answers of nvidia-smi while about two seconds of products are enqueued."""
    a, b = (torch.randn(sizes.product, sizes.product, device=sizes.device).bfloat16() for _ in range(2))
    out = torch.empty_like(a)
    for _ in range(2_000 if sizes.on_gpu else 1):
        torch.mm(a, b, out=out)
    figures = {question: asked(sizes, question) for question in ("clocks.sm", "clocks.mem", "power.draw")}
    torch.cuda.synchronize()
    return figures
