"""An encoded image as the importer sees it: its stored size, its EXIF orientation, and boxes turned upright by it."""

import io
import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

from PIL import Image as Pillow

from fgclip_fast.data.causes import CORRUPT_IMAGE, OTHER_SIZE, BadRecord
from fgclip_fast.inputs.boxes import Box
from fgclip_fast.inputs.orientation import can_be_turned, noted, upright_size

View = Literal["upright", "stored"]
"""The picture that boxes refer to: as EXIF turns it for a viewer, or as its pixels are stored."""
_SAME_ASPECT = 0.02  # relative difference of aspects that rounding a resized image makes, and more


class Picture(NamedTuple):
    """The header of an image file."""

    width: int
    """As stored, pixels."""
    height: int
    orientation: int
    """EXIF orientation, 1 to 8; 1 is upright."""
    kind: str
    """Name for its part of a sample: ``jpg``, ``png``, …"""

    def size(self, view: View) -> tuple[int, int]:
        """Width and height in a view, pixels."""
        turned = view == "upright" and self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


def picture(encoded: bytes) -> Picture:
    """Read the header of an image that can be decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Pillow.open(io.BytesIO(encoded)) as image:
                note, name = noted(image) if can_be_turned(encoded) else 1, image.format or "JPEG"
                # The size that Pillow tells of a TIFF is the upright one.
                width, height = upright_size(image.size, note) if name == "TIFF" else image.size
        except Exception as error:  # broken headers raise nearly every type
            raise BadRecord(CORRUPT_IMAGE, f"header: {error}") from None
    kind = {"jpeg": "jpg", "tiff": "tif", "mpo": "jpg"}.get(name.lower(), name.lower())
    return Picture(width, height, note, kind)


def view_of(found: Picture, stated: tuple[float, float] | None) -> View | None:
    """Tell from the size that a source states for an image which view its boxes refer to; None: it cannot be told.

    Raises:
        BadRecord: the stated size has the aspect of neither view.
    """
    if stated is None:
        return "upright" if found.orientation == 1 else None
    fits: list[View] = [view for view in ("upright", "stored") if _same_aspect(found.size(view), stated)]
    if not fits:
        raise BadRecord(
            OTHER_SIZE, f"must be {found.width} x {found.height}, got {stated[0]:g} x {stated[1]:g}; wrong picture?"
        )
    if found.orientation == 1 or len(fits) == 1:
        return fits[0]
    return None


def _same_aspect(size: tuple[float, float], stated: tuple[float, float]) -> bool:
    ratio = (size[0] * stated[1]) / (size[1] * stated[0])
    # In a small image one pixel is a large share.
    slack = max(_SAME_ASPECT, 1.0 / min(*size, *stated))
    return 1 / (1 + slack) <= ratio <= 1 + slack


def turned_upright(box: Sequence[float], orientation: int) -> Box:
    """Turn a box, xyxy in fractions of the stored picture, to fractions of the upright one."""
    x1, y1, x2, y2 = box
    return {
        1: (x1, y1, x2, y2),
        2: (1 - x2, y1, 1 - x1, y2),
        3: (1 - x2, 1 - y2, 1 - x1, 1 - y1),
        4: (x1, 1 - y2, x2, 1 - y1),
        5: (y1, x1, y2, x2),
        6: (1 - y2, x1, 1 - y1, x2),
        7: (1 - y2, 1 - x2, 1 - y1, 1 - x1),
        8: (y1, 1 - x2, y2, 1 - x1),
    }[orientation]
