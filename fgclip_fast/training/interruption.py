"""Handle Ctrl-C and SIGTERM during training: the first one stops the run after the current step."""

import signal
import threading
from types import FrameType
from typing import Any


class Interruption:
    """A context in which Ctrl-C and SIGTERM only set ``wanted``; a second Ctrl-C raises KeyboardInterrupt at once.

    The loop looks at ``wanted`` after each step, saves a checkpoint and ends as usual, so an interrupted run can be
    used and resumed.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.wanted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.wanted = True
