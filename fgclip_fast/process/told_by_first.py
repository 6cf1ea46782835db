"""A value that the first process of a group makes and tells the others."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def told_by_first(group: dist.ProcessGroup | None, make: Callable[[], T]) -> T:
    """Call ``make`` in the first process alone; return what it gives, or raise what it raises, in all of them.

    Args:
        group: the processes; None is this one alone.
        make: its value, or its error, goes to the others by pickle.
    """
    if group is None:
        return make()
    told: list[Any] = [None, None]
    if dist.get_rank(group) == 0:
        try:
            told = [make(), None]
        except Exception as error:
            told = [None, error]
    dist.broadcast_object_list(told, group=group, group_src=0)
    if told[1] is not None:
        raise told[1]
    value: T = told[0]
    return value
