"""Run tasks in worker processes, in bounded memory, so that an interrupt or a kill ends all of them."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any, TypeVar

from fgclip_fast.process.signals import SIGNALS

T = TypeVar("T")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    task: Callable[..., T], arguments: Iterable[tuple[Any, ...]], workers: int, command: str, way_out: str = ""
) -> Iterator[T]:
    """Yield ``task(*argument)`` for each argument, in order; at most two arguments a worker are taken ahead.

    Args:
        task: a function of a module.
        arguments: taken one by one, in this process.
        workers: processes; with 1 the tasks run here.
        command: name for the message of an error.
        way_out: what helps if a worker was killed, beside fewer workers.

    Raises:
        OSError: a worker was killed.
    """
    if workers == 1:
        yield from (task(*argument) for argument in arguments)
        return
    # Not a fork: the caller may hold threads or a GPU.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([task.__module__])
    start_fork_server()
    pool = ProcessPoolExecutor(workers, context, start_worker)
    running: deque[Future[T]] = deque()
    try:
        for argument in arguments:
            with main_left_out():
                running.append(pool.submit(task, *argument))
            if len(running) > 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    except BrokenProcessPool:
        raise OSError(
            f"{command}: a worker process was killed, perhaps for lack of memory;{way_out} with fewer --workers it"
            " needs less"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def main_left_out() -> Iterator[None]:
    """Start processes that do not import the script of this one, which would run anew where it has no main guard.

    Nothing that a worker needs is defined there. multiprocessing finds the script by these two names.
    """
    script = vars(sys.modules["__main__"])
    names = ("__file__", "__spec__")
    kept = {name: script.pop(name) for name in names if name in script}
    script["__spec__"] = None
    try:
        yield
    finally:
        script.update(kept)


def start_worker() -> None:
    """Prepare a worker: it leaves signals to its parent, works on one thread, and ends when its parent is killed."""
    ignore_signals()
    if "torch" in sys.modules:  # to import it costs more than many a task
        sys.modules["torch"].set_num_threads(1)
    end_with_parent()


def ignore_signals() -> None:
    """Leave the signals that stop a command to the process that has started this one, and ends it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def start_fork_server() -> None:
    """Start the process that workers are forked from, if none is there, so that it ignores what stops a command.

    It would else die of a signal that a terminal, SLURM or Kubernetes sends to all processes, and take the workers
    along; what a process ignores, those that it starts ignore too.
    """
    on_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS} if on_main else {}
    try:
        forkserver.ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """End this process when its parent is killed, which cannot tell it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_for, args=(parent,), daemon=True).start()


def _wait_for(parent: Any) -> None:
    parent.join()
    os._exit(1)
