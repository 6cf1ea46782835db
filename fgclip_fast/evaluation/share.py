"""An evaluation divided among processes: each does its share, and all end with the same figures."""

import time
from collections.abc import Callable, Sequence, Sized
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from fgclip_fast.process.progress import Progress
from fgclip_fast.process.told_by_first import told_by_first

Part = TypeVar("Part")
Result = TypeVar("Result")
Value = TypeVar("Value")

PART = 32
"""Images of a part. Parts are the same for any number of processes, so each embedding has the same bits."""
PATIENCE = 3
"""Seconds that work takes before its progress is shown."""


class Stopped(Exception):
    """An evaluation ended early, since a process was told to stop."""


class _Failure(NamedTuple):
    error: Exception


class Share:
    """The share of this process in the work on many parts.

    Args:
        group: the processes; None is this process alone.
        shown: whether the first process shows the progress of long work.
        stop: asked before each part; True in any process ends the work in all.
    """

    def __init__(
        self,
        group: dist.ProcessGroup | None = None,
        *,
        shown: bool = False,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._group, self._shown, self._stop = group, shown, stop
        self._rank, self._world_size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))

    @property
    def first(self) -> bool:
        """True for the process that counts what all of them read."""
        return self._rank == 0

    def mine(self, parts: Sequence[Part]) -> Sequence[Part]:
        """The parts that :meth:`measure` gives to this process, in its order."""
        return parts[self._rank :: self._world_size]

    def measure(
        self,
        parts: Sequence[Part],
        work: Callable[[Part], Result],
        figures: Callable[[list[Result]], Value],
        what: str = "",
    ) -> Value:
        """Work on all parts, each in one of the processes, and make figures of the results.

        Process r takes the parts r, r + W, …, and all meet after each round. So none waits longer for another than a
        part takes, however long the whole takes, and no collective can run into its time-out.

        Args:
            parts: equal in all processes.
            work: its results are sent to the first process: tensors on the CPU, plain values.
            figures: called by the first process with all results, in the order of ``parts``.
            what: name of what parts hold, for the progress; "" shows none.

        Returns:
            The figures, in every process.

        Raises:
            Exception: one that ``work`` raised in any process, in all of them.
            Stopped: ``stop`` was true in a process.
        """
        done: list[tuple[int, Result]] = []
        shown = _Shown(what, parts, quiet=not (self._shown and self.first and what))
        for start in range(0, len(parts), self._world_size):
            mine, failure = start + self._rank, None
            try:
                if self._stop():
                    raise Stopped
                if mine < len(parts):
                    done.append((mine, work(parts[mine])))
            except Exception as error:
                shown.close()
                if self._group is None:
                    raise
                failure = _Failure(error)
            self._meet(failure)
            shown.update(start + self._world_size)
        shown.close()
        results = [result for _, result in sorted(self._gathered(done), key=lambda pair: pair[0])]
        return self.tell(lambda: figures(results))

    def _meet(self, failure: _Failure | None) -> None:
        """Wait for all processes at the end of a round; raise what one of them met, in all."""
        if self._group is None:
            return
        on_gpu = dist.get_backend(self._group) == "nccl"
        failed = torch.tensor(float(failure is not None), device="cuda" if on_gpu else "cpu")
        dist.all_reduce(failed, dist.ReduceOp.MAX, group=self._group)
        if failed.item():
            every: list[Any] = [None] * self._world_size
            dist.all_gather_object(every, failure, group=self._group)
            raise next(one.error for one in every if one is not None)

    def _gathered(self, done: list[tuple[int, Result]]) -> list[tuple[int, Result]]:
        """The results of all processes, in the first one; nothing in the others."""
        if self._group is None:
            return done
        every: list[Any] | None = [None] * self._world_size if self.first else None
        dist.gather_object(done, every, group=self._group, group_dst=0)
        return [pair for own in every or () for pair in own]

    def tell(self, make: Callable[[], Value]) -> Value:
        """Make a value in the first process and tell the others; an error that it raises is raised in all."""
        return told_by_first(self._group, make)


class _Shown:
    """The progress of work on parts, in the items that they hold."""

    def __init__(self, what: str, parts: Sequence[Any], quiet: bool) -> None:
        self._what, self._quiet = what, quiet
        self._sizes = [len(part) if isinstance(part, Sized) else 1 for part in parts]
        self._bar: Progress | None = None
        self._start = time.monotonic()

    def update(self, parts: int) -> None:
        done, total, seconds = sum(self._sizes[:parts]), sum(self._sizes), time.monotonic() - self._start
        if self._bar is None and not self._quiet and seconds > PATIENCE and done < total:
            self._bar = Progress(total)
        if self._bar is not None:
            self._bar.update(done, f"{self._what}, {done / seconds:.3g} a second,")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def parts_of(count: int, size: int = PART) -> list[range]:
    """Cut ``range(count)`` into parts of ``size``, of which the last may be smaller."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
