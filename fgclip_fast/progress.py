"""Show how far a long task is: a bar on a terminal, plain lines elsewhere."""

import time

from rich import get_console
from rich import progress as rich_progress

INTERVAL = 30
"""Seconds between two plain lines."""


class Progress:
    """The progress of a task in steps.

    On a terminal it is a bar in the last line. In a file, a job's log or a notebook it is one printed line for the
    first step, for the last, and every :data:`INTERVAL` seconds.

    Args:
        total: steps of the task.
        done: steps that are done already.
        quiet: show nothing.
    """

    def __init__(self, total: int, done: int = 0, *, quiet: bool = False) -> None:
        self._total, self._quiet = total, quiet
        self._printed = -float("inf")
        self._bar: rich_progress.Progress | None = None
        if not quiet and get_console().is_terminal:
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
        elif not self._quiet and (step == self._total or time.monotonic() - self._printed >= INTERVAL):
            self._printed = time.monotonic()
            print(f"{step}/{self._total} {text}", flush=True)

    def say(self, text: str) -> None:
        """Print a line that stays, above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif not self._quiet:
            print(text, flush=True)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()
