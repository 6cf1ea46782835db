"""Work on a storage that may fail now and succeed a little later."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_TRIES = 6
_WAIT = 1.0  # seconds after the first failure, doubled after each


def tried(work: Callable[[], T], final: tuple[type[Exception], ...] = ()) -> T:
    """Do some work; where it fails, again up to five times, over half a minute.

    Args:
        work: the work.
        final: errors that another try does not help.

    Raises:
        Exception: what the last try has raised; each storage raises its own.
    """
    for attempt in range(_TRIES - 1):
        try:
            return work()
        except final:
            raise
        except Exception:
            time.sleep(_WAIT * 2**attempt)
    return work()
