"""A case of a section: one row of its table."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

Value = str | float | bool | None
Figures = Mapping[str, Value]


class Case(NamedTuple):
    """Something to measure or to check, alone.

    Attributes:
        name: First column of its row.
        run: Returns the row's other columns. Of a check, ``passed`` tells whether it held.
    """

    name: str
    run: Callable[[], Figures]


class NotHereError(Exception):
    """The case cannot run on this machine; the message says why, and becomes the row's note."""
