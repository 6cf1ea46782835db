"""A thread that writes to a disk while its caller goes on, and tells of a disk that does not answer."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger("fgclip_fast")

HANG = 60.0
"""Seconds after which a job counts as held up by a file system that does not answer."""


class DiskThread:
    """Runs jobs that write, one after another, in a thread that lives while there are any.

    A job that is held up is told of once, and waited for no longer; those after it stand in line.

    Args:
        what: the file or what is written, for messages.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._jobs: deque[Callable[[], object]] = deque()  # the one at hand stays in front until it has ended
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._since = 0.0
        self._hangs = False
        self._fault: BaseException | None = None

    def submit(self, job: Callable[[], object]) -> None:
        """Run a job while the caller goes on, after those before it."""
        with self._lock:
            self._jobs.append(job)
            if len(self._jobs) > 1:
                return
            self._since = time.monotonic()
            # A daemon, since one that the disk holds up would else keep the process from ending, and a second Ctrl-C
            # need not wait.
            self._thread = threading.Thread(target=self._run, name=f"writes {self._what}", daemon=True)
            self._thread.start()

    def has_ended(self) -> bool:
        """Wait until all jobs have ended, or the one at hand is held up; True if they have ended."""
        while self._thread is not None and self._thread.is_alive() and not self._hangs:
            left = HANG - (time.monotonic() - self._since)
            if left <= 0:
                self._tell()
                break
            self._thread.join(left)
        return not self._jobs

    def wait(self, patience: float | None = None) -> None:
        """Wait for all jobs, for some seconds or until they end.

        Raises:
            TimeoutError: they have not ended.
            Exception: one that a job raised.
        """
        if self._thread is not None:
            self._thread.join(patience)
            if self._thread.is_alive():
                raise TimeoutError(f"{self._what}: the file system has not answered for {patience:.0f} s")
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def _tell(self) -> None:
        with self._lock:
            if self._jobs:
                self._hangs = True
                log.error("%s: the file system has not answered for %.0f s; training goes on", self._what, HANG)

    def _run(self) -> None:
        while True:
            try:
                self._jobs[0]()
            except BaseException as fault:
                self._fault = fault
            with self._lock:
                self._jobs.popleft()
                self._since = time.monotonic()
                if self._hangs:
                    log.info("%s: the file system answers again", self._what)
                self._hangs = False
                if not self._jobs:
                    return
