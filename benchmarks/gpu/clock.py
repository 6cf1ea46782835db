"""Time of one run on a card: of the GPU alone, and of all until its results are there."""

from collections.abc import Callable
from functools import cache
from statistics import median
from time import perf_counter
from typing import Any

import torch

from benchmarks.gpu.case import Value
from benchmarks.gpu.sizes import Sizes

CYCLES_A_MS = 2_000_000  # of a card's clock, about


def times(run: Callable[[], Any], sizes: Sizes, repeats: int | None = None) -> dict[str, Value]:
    """Medians in milliseconds: ``GPU ms``, ``wall ms``; on a CPU the wall alone.

    The L2 cache is flushed before each run. For the GPU's time the card first spins as long as the host needs to
    enqueue the run, so that no gap between launches counts; the wall clock starts on an idle card.
    """
    repeats = repeats or sizes.repeats
    for _ in range(2):  # compiles, tunes, and fills the allocator's cache
        run()
    walls = [_wall(run, sizes) for _ in range(repeats)]
    if not sizes.on_gpu:
        return {"GPU ms": None, "wall ms": median(walls)}
    lead = int(CYCLES_A_MS * min(200.0, 1.5 * median(walls) + 0.1))
    return {"GPU ms": median(_on_gpu(run, sizes, lead) for _ in range(repeats)), "wall ms": median(walls)}


def _wall(run: Callable[[], Any], sizes: Sizes) -> float:
    if sizes.on_gpu:
        _flusher(sizes.device).zero_()
        torch.cuda.synchronize()
    start = perf_counter()
    result = run()
    if sizes.on_gpu:
        torch.cuda.synchronize()
    elapsed = 1e3 * (perf_counter() - start)
    del result
    return elapsed


def _on_gpu(run: Callable[[], Any], sizes: Sizes, lead: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    _flusher(sizes.device).zero_()
    torch.cuda._sleep(lead)
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


@cache
def _flusher(device: torch.device) -> torch.Tensor:
    """Twice the L2 cache: writing it leaves nothing else there."""
    return torch.empty(2 * torch.cuda.get_device_properties(device).L2_cache_size, dtype=torch.uint8, device=device)


def rates(took: dict[str, Value], flop: float = 0.0, bytes: float = 0.0) -> dict[str, Value]:
    """``took`` with TFLOP/s and GB/s, by the GPU's time where there is one."""
    ms = took["GPU ms"] or took["wall ms"]
    assert isinstance(ms, float)
    found = dict(took)
    if flop:
        found["TFLOP/s"] = flop / ms / 1e9
    if bytes:
        found["GB/s"] = bytes / ms / 1e6
    return found
