"""Writes checkpoints while training goes on, and says when one is due."""

import logging
import time
from collections.abc import Callable
from functools import partial

from fgclip_fast.training.disk_thread import DiskThread

log = logging.getLogger("fgclip_fast")

RETRY = 60.0
"""Seconds after which a checkpoint that could not be written makes another one due."""
PAUSE = 10.0
"""Seconds between two attempts to write the last checkpoint of a run."""


class Saver:
    """Runs jobs that write, one after another, in a thread of its own.

    A job that the disk refuses is told once; training goes on, and another checkpoint is soon due. So is a job that the
    disk neither takes nor refuses; until it ends no other checkpoint is due.

    Args:
        every: steps from one checkpoint to the next; 0 counts none.
        minutes: minutes from one checkpoint to the next; 0 looks at no clock.
    """

    def __init__(self, every: int, minutes: float) -> None:
        self._every, self._seconds = every, minutes * 60
        self._since = time.monotonic()
        self._disk = DiskThread("checkpoints")
        self._refused: str | None = None
        self._postponed = False

    def due(self, step: int) -> bool:
        """True if a checkpoint is due after ``step``: by its number, by the clock, or since the last one failed."""
        passed = time.monotonic() - self._since
        late = (self._seconds and passed >= self._seconds) or (self._refused and passed >= RETRY) or self._postponed
        wanted = bool(late or (self._every and step % self._every == 0))
        self._postponed = wanted and not self._disk.has_ended()
        return wanted and not self._postponed

    def postpone(self) -> None:
        """Make a checkpoint due after the next step, in place of one that is due now."""
        self._postponed = True

    def submit(self, job: Callable[[], object]) -> None:
        """Run a job while the caller goes on, after the one before.

        First wait for that one, unless the disk holds it up.

        Raises:
            Exception: one that the job before raised, other than OSError.
        """
        if self._disk.has_ended():
            self._disk.wait()
        self._since = time.monotonic()
        self._disk.submit(partial(self._run, job))

    def finish(self, job: Callable[[], object], patience: float) -> None:
        """Run the last job, again and again while the disk refuses it.

        Args:
            job: writes what must not be lost.
            patience: seconds to go on trying.

        Raises:
            OSError: it could not be written, or one before it was still held up.
        """
        end = time.monotonic() + patience
        self.wait(patience)
        while True:
            try:
                job()
                self._accepted()
                return
            except OSError as error:
                if time.monotonic() >= end:
                    raise
                way_out = f"tried again for {patience:.0f} s: make it possible, or press Ctrl-C to give up"
                self._refuse(f"the last checkpoint cannot be written ({error}); {way_out}")
                time.sleep(min(PAUSE, max(0.0, end - time.monotonic())))

    def wait(self, patience: float | None = None) -> None:
        """Wait for the job at hand, for some seconds or until it ends.

        Raises:
            TimeoutError: it has not ended.
            Exception: one that it raised, other than OSError.
        """
        self._disk.wait(patience)

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
            self._accepted()
        except OSError as error:
            self._refuse(f"a checkpoint cannot be written ({error}); training goes on, and it is tried again")

    def _refuse(self, message: str) -> None:
        if self._refused is None or self._refused[:20] != message[:20]:
            log.error(message)
        self._refused = message

    def _accepted(self) -> None:
        if self._refused is not None:
            log.info("checkpoints can be written again")
        self._refused = None
