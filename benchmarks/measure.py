"""Time and memory of one run, on a CPU or a GPU."""

import ctypes
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TypeVar

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Result = TypeVar("Result")
Run = Callable[[], object]


def seconds(run: Run) -> float:
    """Of one run; its results are freed outside the clock."""
    synchronize()
    start = perf_counter()
    result = run()
    synchronize()
    elapsed = perf_counter() - start
    del result
    return elapsed


def by_turns(
    benchmark: Any, ours: Run, peers: Mapping[str, Run], rounds: int, warmup_rounds: int = 0
) -> dict[str, float]:
    """How many times as long as ``ours`` each peer takes, medians; empty under ``--benchmark-disable``.

    All run in each round, since a slow spell of the machine must hit all.
    """
    times: dict[str, list[float]] = {name: [] for name in peers}

    def peers_turn() -> None:
        for name, run in peers.items():
            times[name].append(seconds(run))

    benchmark.pedantic(lambda: seconds(ours), setup=peers_turn, rounds=rounds, warmup_rounds=warmup_rounds)
    if not benchmark.enabled:
        return {}
    return {name: median(spent) / benchmark.stats["median"] for name, spent in times.items()}


def peak_bytes(run: Callable[[], Result]) -> tuple[int, Result]:
    """Peak memory of a run beyond what was held before, and its result; on a CPU by the system's count of pages."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = run()
        return torch.cuda.max_memory_allocated() - before, result
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # freed pages that the process still holds would hide what the run needs
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    result = run()
    return _status("VmHWM") - before, result


def synchronize() -> None:
    """Waits for the GPU, if there is one."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _status(field: str) -> int:
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field)]
    return 1024 * int(line.split()[1])
