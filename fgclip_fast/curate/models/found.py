"""What a detector finds, and what a stage needs of a detector."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from fgclip_fast.inputs.boxes import Box


class Found(NamedTuple):
    """A box that a detector has found."""

    box: Box
    """xyxy, fractions of the upright image."""
    phrase: int
    """Number of the phrase that it shows."""
    score: float
    """Confidence, 0 to 1."""


class Backend(Protocol):
    """What finds boxes: a server, or a model in this process."""

    async def boxes(self, image: bytes, phrases: Sequence[str]) -> list[Found]:
        """Find boxes for phrases in an image file.

        Raises:
            LeftOut: the image or the answer cannot be used.
        """

    async def close(self) -> None:
        """Give back what it holds."""
