"""The signals that stop a command: the first acts as Ctrl-C does, whichever it is; a second Ctrl-C ends at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""SIGTERM comes from SLURM, Kubernetes, spot machines; SIGUSR1 from SLURM's --signal; SIGHUP from a lost terminal."""


class Signalled(KeyboardInterrupt):
    """A signal came.

    Attributes:
        number: of the signal.
        at_once: True for a second Ctrl-C, after which nothing is waited for.
    """

    def __init__(self, number: int, *, at_once: bool = False) -> None:
        super().__init__()
        self.number, self.at_once = number, at_once


@contextmanager
def raised() -> Iterator[None]:
    """A context in which the first signal raises :class:`Signalled`, and of the others only a Ctrl-C, to end at once.

    Temporary files are removed on the way out, and workers ended, which a signal that kills would not do.
    """
    came: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1 or number == signal.SIGINT:
            raise Signalled(number, at_once=len(came) > 1)

    before = {}
    if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
        before = {number: signal.signal(number, handle) for number in heard()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) == handle:  # else it is to be left as who changed it wants it
                signal.signal(number, handler)


def heard() -> list[signal.Signals]:
    """The signals that stop a command here: all, but for a SIGHUP that ``nohup`` keeps away."""
    return [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
