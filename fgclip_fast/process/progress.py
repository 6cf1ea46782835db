"""Show how far a long task is: a bar on a terminal, one display in a notebook, plain lines elsewhere."""

import sys
import time
from datetime import timedelta
from html import escape
from typing import Any

from rich import get_console, progress as rich_progress

INTERVAL = 30
"""Seconds between two plain lines."""
EARLY = (3, 10)
"""Seconds from the first plain line to the second, and from there to the third: an early look at a new run."""
_REDRAW = 0.5  # seconds between two updates in a notebook, each of which is a message to the browser


class Progress:
    """The progress of a task in steps.

    On a terminal it is a bar in the last line. In a notebook it is one display, which is updated in its place and stays
    when the task ends; it needs no widgets. In a file or a job's log it is one printed line for the first step, for the
    last, and every :data:`INTERVAL` seconds, with the time that is left; the first ones come sooner. Colours that
    FORCE_COLOR asks for do not make a file a terminal.

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
        self._display: _Display | None = None
        if not quiet and get_console().is_jupyter:
            self._display = _Display(total, done)
        elif not quiet and get_console().is_terminal and sys.stdout.isatty():
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
            line = f"{step}/{self._total} {text}{self._left(step, now, *self._start)}"
            if self._display is not None:
                self._display.update(step, line)
            elif step == self._total or now >= self._next:
                self._next = now + (self._intervals.pop() if self._intervals else INTERVAL)
                print(line, flush=True)

    def say(self, text: str) -> None:
        """Print a line that stays: above the bar, or below it in a notebook."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif self._display is not None:
            self._display.say(text)
        elif not self._quiet:
            print(text, flush=True)

    def _left(self, step: int, now: float, first: int, since: float) -> str:
        """The time until the last step at the pace since the first, in words; empty where there is none to tell."""
        if not first < step < self._total:
            return ""
        return f" ETA {timedelta(seconds=round((now - since) / (step - first) * (self._total - step)))}"

    def close(self) -> None:
        """End the bar; the display of a notebook keeps its last state."""
        if self._bar is not None:
            self._bar.stop()
        if self._display is not None:
            self._display.draw()


class _Display:
    """The display of a notebook: a bar, the newest line beside it, and below it the lines that stay.

    It is a plain output of the cell, so that a saved notebook keeps it.
    """

    def __init__(self, total: int, done: int) -> None:
        from IPython.display import display  # a notebook has it

        self._total, self._done, self._line = total, done, "starting"
        self._said: list[str] = []
        self._next = time.monotonic() + _REDRAW
        self._shown: Any = display(self, display_id=True)

    def update(self, done: int, line: str) -> None:
        """Show a newer state, at most every :data:`_REDRAW` seconds and at the last step."""
        self._done, self._line = done, line
        if done == self._total or time.monotonic() >= self._next:
            self.draw()

    def say(self, text: str) -> None:
        """Add a line that stays."""
        self._said.append(text)
        self.draw()

    def draw(self) -> None:
        """Show the newest state in the place of what is shown."""
        self._next = time.monotonic() + _REDRAW
        if self._shown is not None:
            self._shown.update(self)

    def _repr_html_(self) -> str:
        bar = f'<progress value="{self._done}" max="{max(1, self._total)}"></progress>'
        lines = "".join(f"<br>{escape(text)}" for text in self._said)
        return f"<div>{bar} {escape(self._line)}{lines}</div>"

    def __repr__(self) -> str:
        return "\n".join([self._line, *self._said])
