"""EXIF orientation, a camera's note that an image should be turned; this package takes every image upright.

An orientation is a number from 1 (upright as stored) to 8, as EXIF defines it. What counts as the note is what Pillow
reads: the EXIF block of a JPEG, PNG, WebP or AVIF, else its XMP.
"""

import re

import numpy as np
from PIL import Image
from PIL.Image import Transpose

_TAG = 0x0112
_METHODS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_NOTES = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # where Pillow keeps it
_PNG_NOTES = (b"eXIf", b"Raw profile type", b"adobe.xmp")
# The tag and its type in either byte order, and the whole entry where its value is 1.
_ENTRY = re.compile(rb"\x01\x12\0[\x01-\x0d]|\x12\x01[\x01-\x0d]\0|tiff:Orientation")
_UPRIGHT = re.compile(rb"\x01\x12\0\x03\0\0\0\x01\0\x01|\x12\x01\x03\0\x01\0\0\0\x01\0")


def orientation(image: Image.Image) -> int:
    """Tell how the pixels that Pillow gives must be turned. Those of a TIFF need not be: Pillow turns them itself."""
    return 1 if image.format == "TIFF" else noted(image)


def noted(image: Image.Image) -> int:
    """Read the orientation that an image file notes; 1 where it has none, or none that can be read."""
    try:
        note = image.getexif().get(_TAG, 1)
    except Exception:  # a broken note raises nearly every type, and says nothing
        return 1
    return note if note in _METHODS else 1


def can_be_turned(encoded: bytes) -> bool:
    """Tell by a quick look at an image file whether its orientation may be another than 1; then Pillow must tell."""
    if encoded[:2] == b"\xff\xd8":
        return _jpeg_can_be_turned(encoded)
    return encoded[:4] != b"\x89PNG" or any(note in encoded for note in _PNG_NOTES)


def _jpeg_can_be_turned(encoded: bytes) -> bool:
    at = 2
    while encoded[at : at + 1] == b"\xff":
        marker, size = encoded[at + 1 : at + 2], int.from_bytes(encoded[at + 2 : at + 4], "big")
        if marker == b"\xda":  # the pixels
            return False
        if marker == b"\xe1":
            content = encoded[at + 4 : at + 2 + size]
            if len(_ENTRY.findall(content)) > len(_UPRIGHT.findall(content)):
                return True
        at += 2 + size
    return True  # something else between two segments


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image as its orientation says; the result no longer carries a note."""
    if orientation == 1:
        return image
    turned = image.transpose(_METHODS[orientation])
    for note in _NOTES:
        turned.info.pop(note, None)
    return turned


def upright_pixels(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn the stored pixels of an image, [H, W, C], as its orientation says."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Turn width and height as an orientation says."""
    return size[::-1] if orientation >= 5 else size
