"""Writes checkpoints while training goes on, and says when one is due."""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("fgclip_fast")

RETRY = 60.0
"""Seconds after which a checkpoint that could not be written makes another one due."""
PAUSE = 10.0
"""Seconds between two attempts to write the last checkpoint of a run."""
HANG = 60.0
"""Seconds after which a job counts as held up by a file system that does not answer; training waits no longer."""


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
        self._thread: threading.Thread | None = None
        self._refused: str | None = None
        self._postponed = self._hangs = False
        self._fault: BaseException | None = None

    def due(self, step: int) -> bool:
        """True if a checkpoint is due after ``step``: by its number, by the clock, or since the last one failed."""
        passed = time.monotonic() - self._since
        late = (self._seconds and passed >= self._seconds) or (self._refused and passed >= RETRY) or self._postponed
        wanted = bool(late or (self._every and step % self._every == 0))
        self._postponed = wanted and not self._has_ended()
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
        before = None if self._has_ended() else self._thread
        if before is None:
            self.wait()
        self._since = time.monotonic()
        # A daemon, so that a second Ctrl-C need not wait; what it leaves half-written has no final name.
        self._thread = threading.Thread(target=self._run, args=(job, before), name="saver", daemon=True)
        self._thread.start()

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
        if self._thread is not None:
            self._thread.join(patience)
            if self._thread.is_alive():
                raise TimeoutError(f"a checkpoint is held up: the file system has not answered for {patience:.0f} s")
            self._thread = None
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def _has_ended(self) -> bool:
        """Wait for the job at hand, until it counts as held up, and tell of that once; True if it has ended."""
        if self._thread is None:
            return True
        self._thread.join(max(0.0, HANG - (time.monotonic() - self._since)))
        if held_up := self._thread.is_alive():
            if not self._hangs:
                log.error(
                    "a checkpoint is held up: the file system has not answered for %.0f s; training goes on, and the"
                    " next checkpoint waits for this one", time.monotonic() - self._since
                )  # fmt: skip
            self._hangs = True
        return not held_up

    def _run(self, job: Callable[[], object], before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        try:
            job()
            self._accepted()
        except OSError as error:
            self._refuse(f"a checkpoint cannot be written ({error}); training goes on, and it is tried again")
        except BaseException as fault:
            self._fault = fault

    def _refuse(self, message: str) -> None:
        if self._refused is None or self._refused[:20] != message[:20]:
            log.error(message)
        self._refused = message

    def _accepted(self) -> None:
        if self._refused is not None or self._hangs:
            log.info("checkpoints can be written again")
        self._refused, self._hangs = None, False
