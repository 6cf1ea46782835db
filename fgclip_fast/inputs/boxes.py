"""Check boxes, by one rule for records, questions and calls, and convert them to fractions in xyxy.

Inside this package a box is ``x1, y1, x2, y2`` as fractions of its image's width and height, in fp32, as the model gets
it. It may reach over the edges of the image, but must cover some of it.
"""

import math
from array import array
from collections.abc import Sequence

Box = tuple[float, float, float, float]

WRONG_TYPE = "box of a wrong type"
SHORT = "box of fewer than 4 numbers"
NOT_FINITE = "box not finite"
INVERTED = "inverted box"
EMPTY = "empty box"
OUTSIDE = "box outside the image"
REASONS = (WRONG_TYPE, SHORT, NOT_FINITE, INVERTED, EMPTY, OUTSIDE)
"""The words under which unusable boxes are counted."""


class BadBox(ValueError):
    """A value that is not a usable box; ``reason`` is one of :data:`REASONS`, the message says what must hold."""

    def __init__(self, reason: str, rule: str) -> None:
        super().__init__(rule)
        self.reason = reason


def numbers(value: object) -> list[float]:
    """Return the first four numbers of a JSON list; what follows them, such as a confidence, is ignored.

    Raises:
        BadBox: ``value`` is not a list, is shorter, or holds a value that is not a number; true and false are not.
    """
    if not isinstance(value, list):
        raise BadBox(WRONG_TYPE, "must be a list of numbers")
    if len(value) < 4:
        raise BadBox(SHORT, "must hold 4 numbers")
    if any(isinstance(side, bool) or not isinstance(side, int | float) for side in value[:4]):
        raise BadBox(WRONG_TYPE, "must hold 4 numbers")
    return value[:4]


def corners(box: Sequence[float]) -> Box:
    """Convert ``x, y, width, height`` to ``x1, y1, x2, y2``, in the same unit."""
    x, y, width, height = box
    return x, y, x + width, y + height


def fractions(box: Sequence[float], width: float, height: float) -> Box:
    """Convert a box, xyxy, from pixels to fractions of its image's width and height; nothing is rounded to fp32 yet.

    Raises:
        ArithmeticError: a side of the image is 0, or a side of the box is an integer beyond fp64.
    """
    x1, y1, x2, y2 = box
    return x1 / width, y1 / height, x2 / width, y2 / height


def checked(box: Sequence[float]) -> Box:
    """Round a box to fp32 and check it; sides that differ in fp64 may be equal then.

    Args:
        box: xyxy, fractions of its image's width and height.

    Raises:
        BadBox: it is not finite (in fp32), inverted, empty, or outside the image.
    """
    try:
        x1, y1, x2, y2 = array("f", box)
    except OverflowError:  # of an integer beyond fp64; a float beyond fp32 becomes infinite
        raise BadBox(NOT_FINITE, "must be finite") from None
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise BadBox(NOT_FINITE, "must be finite")
    if x1 > x2 or y1 > y2:
        raise BadBox(INVERTED, "must be x1, y1, x2, y2 with x1 < x2 and y1 < y2")
    if x1 == x2 or y1 == y2:
        raise BadBox(EMPTY, "must have x1 < x2 and y1 < y2 in fp32")
    if x1 >= 1 or y1 >= 1 or x2 <= 0 or y2 <= 0:
        raise BadBox(OUTSIDE, "must cover some of its image")
    return x1, y1, x2, y2
