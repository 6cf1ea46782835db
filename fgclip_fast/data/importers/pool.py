"""Run tasks in worker processes, in bounded memory, so that an interrupt or a kill ends all of them."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(task: Callable[..., T], arguments: Iterable[tuple[Any, ...]], workers: int) -> Iterator[T]:
    """Yield ``task(*argument)`` for each argument, in order; at most two arguments a worker are taken ahead.

    Args:
        task: a function of a module.
        arguments: taken one by one, in this process.
        workers: processes; with 1 the tasks run here.

    Raises:
        OSError: a worker was killed.
    """
    if workers == 1:
        yield from (task(*argument) for argument in arguments)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fgclip_fast.data.importers.look"])
    pool = ProcessPoolExecutor(workers, context, _start)
    running: deque[Future[T]] = deque()
    try:
        for argument in arguments:
            running.append(pool.submit(task, *argument))
            if len(running) > 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    except BrokenProcessPool:
        raise OSError(
            "data import: a worker process was killed, perhaps for lack of memory; the same command continues,"
            " with fewer --workers it needs less"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process is interrupted too, and ends the workers
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the main process is killed, which cannot tell it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
