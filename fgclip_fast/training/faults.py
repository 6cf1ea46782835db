"""What ends a run early: signals, asked for politely; a second one ends it at once."""

import signal
import threading
from types import FrameType
from typing import Any


class Interruption:
    """A context in which Ctrl-C and SIGTERM only set ``wanted``; a second Ctrl-C raises KeyboardInterrupt.

    The loop looks at ``wanted`` after each step, saves, and ends as usual: an interrupted run is a usable run.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.wanted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.wanted = True
