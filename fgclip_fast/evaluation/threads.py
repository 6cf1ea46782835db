"""Work in threads before its results are taken: images are decoded while the model looks at those before."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

AHEAD = 2
"""Parts that are worked on while the one before is used."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(parts: Iterable[Sequence[Item]], work: Callable[[Item], Result]) -> Iterator[list[Result]]:
    """Work on items in threads, :data:`AHEAD` parts before they are taken.

    Args:
        parts: items that are taken together.
        work: called with each item, in any thread.

    Returns:
        The results of each part, in its order.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        waiting: deque[list[Future[Result]]] = deque()
        for part in parts:
            waiting.append([threads.submit(work, item) for item in part])
            if len(waiting) > AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
