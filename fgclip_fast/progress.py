"""Show how far a long task is: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from datetime import timedelta

from rich import get_console
from rich import progress as rich_progress

INTERVAL = 30
"""Seconds between two plain lines."""
EARLY = (3, 10)
"""Seconds from the first plain line to the second, and from there to the third: an early look at a new run."""


class Progress:
    """The progress of a task in steps.

    On a terminal it is a bar in the last line. In a file, a job's log or a notebook it is one printed line for the
    first step, for the last, and every :data:`INTERVAL` seconds, with the time that is left; the first ones come
    sooner. Colours that FORCE_COLOR asks for do not make a file a terminal.

    Args:
        total: steps of the task.
        done: steps that are done already.
        quiet: show nothing.
    """

    def __init__(self, total: int, done: int = 0, *, quiet: bool = False) -> None:
        self._total, self._quiet = total, quiet
        self._intervals = [*reversed(EARLY)]
        self._next = -float("inf")
        self._start: tuple[int, float] | None = None
        self._bar: rich_progress.Progress | None = None
        if not quiet and get_console().is_terminal and sys.stdout.isatty():
            columns = (
                rich_progress.TextColumn("{task.completed}/{task.total}"),
                rich_progress.BarColumn(20),
                rich_progress.TextColumn("{task.description}"),
                rich_progress.TimeRemainingColumn(),
            )
            self._bar = rich_progress.Progress(*columns)
            self._task = self._bar.add_task("starting", total=total, completed=done)
            self._bar.start()

    def update(self, step: int, text: str) -> None:
        """Show that ``step`` steps are done, with some figures as text."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
        elif not self._quiet:
            now = time.monotonic()
            if self._start is None:
                self._start = step, now
            if step == self._total or now >= self._next:
                self._next = now + (self._intervals.pop() if self._intervals else INTERVAL)
                print(f"{step}/{self._total} {text}{self._left(step, now, *self._start)}", flush=True)

    def say(self, text: str) -> None:
        """Print a line that stays, above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif not self._quiet:
            print(text, flush=True)

    def _left(self, step: int, now: float, first: int, since: float) -> str:
        """The time until the last step at the pace since the first, in words; empty where there is none to tell."""
        if not first < step < self._total:
            return ""
        return f" ETA {timedelta(seconds=round((now - since) / (step - first) * (self._total - step)))}"

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()
