"""Handle Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP during training: the first one stops the run after the current step."""

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fgclip_fast.process.signals import Signalled, heard

log = logging.getLogger("fgclip_fast")

_ECHO = 2.0  # seconds within which torchrun repeats a Ctrl-C that the terminal has sent to all processes already
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


class Interrupted(Exception):
    """A signal came while the run waited for something that it can do without."""


class Interruption:
    """A context in which signals only set ``wanted``; a second Ctrl-C raises :class:`Signalled`, to end at once.

    The loop looks at ``wanted`` after each step, saves a checkpoint and ends as usual, so an interrupted run can be
    used and resumed.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._came = 0.0
        self._waiting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for number in heard():
                self._before[number] = signal.signal(number, self._handle)
            _signal_at_death_of_torchrun(signal.SIGTERM)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            _signal_at_death_of_torchrun(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A context that a signal ends at once.

        Raises:
            Interrupted: a signal came, here or before.
        """
        self._waiting = True
        try:
            if self.wanted:
                raise Interrupted
            yield
        finally:
            self._waiting = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        echo = "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - self._came < _ECHO
        if self.wanted and number == signal.SIGINT and not echo:
            raise Signalled(number, at_once=True)
        if not self.wanted:
            self.wanted, self._came = True, time.monotonic()
        if self._waiting:
            self._waiting = False
            raise Interrupted


def _signal_at_death_of_torchrun(number: int) -> None:
    """Let Linux send a signal when torchrun dies without handing on what killed it, as of SIGUSR1; 0 sends none."""
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
