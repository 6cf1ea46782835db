"""Each op gives the same bits every time and on any stream, and neither it nor a step makes the host wait."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.gpu import problems
from benchmarks.gpu.case import Case, Figures, NotHereError
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.small_calls import Call, calls
from benchmarks.gpu.step import Step
from fgclip_fast.training.distributed import Processes, StopFlag
from fgclip_fast.training.monitor import Monitor

REPEATS = 20


def cases(sizes: Sizes) -> Iterator[Case]:
    """Three checks of each op, then those of a step."""
    for name, call in calls(sizes.device).items():
        yield Case(f"{name}: {REPEATS} repeats", partial(_repeats, call))
        yield Case(f"{name}: a side stream", partial(_side_stream, call, sizes))
        yield Case(f"{name}: nothing waits", partial(_without_waiting, call, sizes))
    yield Case("step: same bits twice", lambda: _step_twice(sizes))
    yield Case("step: nothing waits", lambda: _step_without_waiting(sizes))
    yield Case("step with metrics and stop flag: nothing waits", lambda: _loop_without_waiting(sizes))


def _repeats(call: Call) -> Figures:
    first = call()
    different = sum(not _equal(first, call()) for _ in range(REPEATS))
    return {"passed": different == 0, "different": different}


def _equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(a.equal(b) for a, b in zip(one, other, strict=True))


def _side_stream(call: Call, sizes: Sizes) -> Figures:
    if not sizes.on_gpu:
        raise NotHereError("no GPU")
    first = call()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        second = call()
    stream.synchronize()
    return {"passed": _equal(first, second)}


def _without_waiting(run: Callable[[], object], sizes: Sizes) -> Figures:
    """Run twice, the second time where torch raises if the host waits for the device."""
    run()
    with _waiting_raises() if sizes.on_gpu else nullcontext():
        run()
    return {"passed": True}


@contextmanager
def _waiting_raises() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _step_twice(sizes: Sizes) -> Figures:
    """Two models of the same seed after two steps each."""
    weights = []
    for _ in range(2):
        step = Step(sizes, sizes.model, problems.batch(sizes, min(16, sizes.images), 0.8))
        step()
        step()
        weights.append([parameter.detach() for parameter in step.network.parameters()])
    return {"passed": _equal(*weights)}


def _step_without_waiting(sizes: Sizes) -> Figures:
    return _without_waiting(Step(sizes, sizes.model, problems.batch(sizes, min(16, sizes.images), 0.8)), sizes)


def _loop_without_waiting(sizes: Sizes) -> Figures:
    """The body of the training loop: a batch from pinned memory, the step, its metrics and the stop flag."""
    host = problems.batch(sizes, min(16, sizes.images), 0.8).to("cpu")
    host = host.pin_memory() if sizes.on_gpu else host
    step = Step(sizes, sizes.model, host)
    with TemporaryDirectory() as folder:
        monitor = Monitor(Path(folder), steps=3, quiet=True)
        stop, number = StopFlag(Processes(0, 1, None, sizes.device)), iter(range(1, 4))

        def body() -> None:
            step.batch = host.to(sizes.device, non_blocking=sizes.on_gpu)
            losses, norm, skipped = step()
            monitor.record(next(number), losses, norm, skipped, 1e-6, len(host.image), 1)
            stop.agreed(False)

        try:
            return _without_waiting(body, sizes)
        finally:
            monitor.close()
            stop.close()
