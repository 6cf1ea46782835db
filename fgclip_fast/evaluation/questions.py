"""A question to a model: which of several texts fits a box of an image?"""

from typing import NamedTuple

from fgclip_fast.inputs.boxes import Box


class Question(NamedTuple):
    """A box of an image, and texts of which the first is right."""

    box: Box
    """xyxy, as fractions of the image's width and height."""
    texts: tuple[str, ...]
    """The right text, then its negatives; a text alone names the box and asks nothing."""
    unseen: bool | None = None
    """True if the noun and colour of the right text never come together in training; None if unknown."""
