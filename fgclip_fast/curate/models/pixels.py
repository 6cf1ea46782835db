"""Prepare images for models: upright, of bounded size, in a format that every server reads."""

import io

from PIL import Image as Pillow

from fgclip_fast.curate.stage import LeftOut
from fgclip_fast.data.causes import BadRecord
from fgclip_fast.data.decode import whole
from fgclip_fast.data.importers.picture import picture

_AS_THEY_ARE = {"jpg": "jpeg", "png": "png"}


def sendable(encoded: bytes, side: int) -> tuple[bytes, str]:
    """An image file as it is sent, and its kind: as it came if it is an upright JPEG or PNG of bounded size.

    Args:
        encoded: the image file.
        side: longest side, pixels.

    Raises:
        LeftOut: it cannot be decoded.
    """
    try:
        found = picture(encoded)
    except BadRecord as bad:
        raise LeftOut(bad.cause, bad.detail) from None
    if found.kind in _AS_THEY_ARE and found.orientation == 1 and max(found.width, found.height) <= side:
        return encoded, _AS_THEY_ARE[found.kind]
    image = upright(encoded)
    image.thumbnail((side, side), Pillow.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue(), "jpeg"


def upright(encoded: bytes) -> Pillow.Image:
    """Decode an image file, in RGB and upright.

    Raises:
        LeftOut: it cannot be decoded.
    """
    try:
        pixels = whole(encoded)
    except BadRecord as bad:
        raise LeftOut(bad.cause, bad.detail) from None
    return Pillow.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
