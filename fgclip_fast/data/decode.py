"""Encoded bytes to a square of pixels, on the CPU: libjpeg-turbo and torch's uint8 bicubic, else Pillow.

The squash, its filter and its antialiasing are PIL's ``resize((S, S))`` of an RGB picture, to 2 of 255 at most.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fgclip_fast.data.causes import (
    CORRUPT_IMAGE,
    HUGE_IMAGE,
    NOT_AN_IMAGE,
    TRUNCATED_IMAGE,
    UNKNOWN_RANGE,
    BadRecord,
)
from fgclip_fast.inputs.image import UnknownRange, rgb, squash

MAX_PIXELS = 2**27
"""Larger images are refused: their pixels alone take 400 MB."""
_END_MARK = b"\xff\xd9"
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # no format that Pillow runs a program for


def decode(encoded: bytes, size: int) -> Tensor:
    """uint8 [3, size, size] of an image file, squashed.

    Raises:
        BadRecord: not an image, truncated, corrupt, too large, or of pixels whose range is not known.
    """
    with _failures_refused(encoded):
        pixels = _decode_jpeg(encoded) if is_plain_jpeg(encoded) else _decode_other(encoded)
    # A view with channels last in memory, for which torch has a fast path.
    return squash(torch.from_numpy(pixels).permute(2, 0, 1), size)


def sides(encoded: bytes) -> tuple[int, int]:
    """Width and height of an image file, in pixels, as it is stored: a turn that its EXIF data ask for is not made.

    Raises:
        BadRecord: as :func:`decode`, of what the header tells.
    """
    with _failures_refused(encoded):
        return _open(encoded).size


def keep_encoded(encoded: bytes, size: int) -> Tensor:
    """The file, uint8 [N], where DALI can decode it; else uint8 [3, size, size], decoded here.

    Raises:
        BadRecord: as :func:`decode`.
    """
    if is_plain_jpeg(encoded) and encoded.endswith(_END_MARK):
        return torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    return decode(encoded, size)


def is_plain_jpeg(encoded: bytes) -> bool:
    """Whether libjpeg-turbo alone decodes it as PIL would: three channels of eight bits in YCbCr.

    Raises:
        BadRecord: a JPEG that is too large.
    """
    if encoded[:2] != b"\xff\xd8":
        return False
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded, strict=False)
    except Exception:  # ValueError, or KeyError of a colour space that simplejpeg has no name for
        return False  # Pillow says what is wrong
    _check_size(width, height)
    return colorspace == "YCbCr"


def _decode_jpeg(encoded: bytes) -> np.ndarray:
    """uint8 [H, W, 3]. What libjpeg merely warns of ruins pixels, unless it is bytes between two markers."""
    try:
        return simplejpeg.decode_jpeg(encoded, "RGB")
    except ValueError as error:
        if "extraneous bytes" not in str(error):
            raise
    return simplejpeg.decode_jpeg(encoded, "RGB", strict=False)  # raises again where it cannot go on after them


def _decode_other(encoded: bytes) -> np.ndarray:
    """uint8 [H, W, 3] by Pillow: grey, CMYK, palettes, PNG under whatever name."""
    image = _open(encoded)
    _check_size(*image.size)
    return np.array(rgb(image))


def _open(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded), formats=_FORMATS)


@contextmanager
def _failures_refused(encoded: bytes) -> Iterator[None]:
    """Makes a bad record of whatever a decoder raises: on broken files that is nearly anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large sizes, which are checked here, and of odd metadata
            yield
    except BadRecord:
        raise
    except UnidentifiedImageError:
        raise BadRecord(NOT_AN_IMAGE, f"{len(encoded)} bytes, first {encoded[:8]!r}") from None
    except UnknownRange as error:
        raise BadRecord(UNKNOWN_RANGE, str(error)) from None
    except (Image.DecompressionBombError, MemoryError) as error:
        raise BadRecord(HUGE_IMAGE, _said(error)) from None
    except Exception as error:
        why = _said(error)
        truncated = "truncated" in why.lower() or "premature end" in why.lower()
        raise BadRecord(TRUNCATED_IMAGE if truncated else CORRUPT_IMAGE, why) from None


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise BadRecord(CORRUPT_IMAGE, f"{width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise BadRecord(HUGE_IMAGE, f"{width} x {height} pixels, at most {MAX_PIXELS} are decoded")
