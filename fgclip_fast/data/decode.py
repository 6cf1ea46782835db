"""Decode image files to squares of pixels on the CPU: libjpeg-turbo and torch's uint8 bicubic, else Pillow.

The image is turned upright as its EXIF orientation says; then the pixels differ from PIL's
``convert("RGB").resize((S, S), BICUBIC)`` by at most 2 of 255.
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
from fgclip_fast.data.jpeg_header import HARMLESS, with_plain_header
from fgclip_fast.inputs.image import UnknownRange, rgb, squash
from fgclip_fast.inputs.image_cost import FORMATS, TooLarge, check_file, check_size
from fgclip_fast.inputs.orientation import can_be_turned, orientation, upright_pixels, upright_size

_END_OF_JPEG = b"\xff\xd9"


def decode(encoded: bytes, size: int) -> Tensor:
    """Decode an image file, turn it upright and squash it.

    Returns:
        uint8 Tensor[3, size, size].

    Raises:
        BadRecord: not an image, truncated, corrupt, too large, or with pixels of unknown range.
    """
    return squash(whole(encoded), size)


def whole(encoded: bytes) -> Tensor:
    """Decode an image file and turn it upright: uint8 Tensor[3, H, W].

    Raises:
        BadRecord: as :func:`decode`.
    """
    with _refused_on_failure(encoded):
        check_file(encoded)
        pixels = _decode_jpeg(encoded) if is_plain_jpeg(encoded) else _decode_other(encoded)
    # A view with channels last in memory, for which torch has a fast path.
    return torch.from_numpy(pixels).permute(2, 0, 1)


def sides(encoded: bytes) -> tuple[int, int]:
    """Read width and height of an image file, upright, in pixels.

    Raises:
        BadRecord: as :func:`decode`, as far as the header shows it.
    """
    with _refused_on_failure(encoded):
        check_file(encoded)
        image = _open(encoded)
        return upright_size(image.size, orientation(image)) if can_be_turned(encoded) else image.size


def encoded_or_decoded(encoded: bytes, size: int) -> bytes | Tensor:
    """Return the file as it is where DALI can decode it and it is upright, else decode it: uint8 Tensor[3, size, size].

    Raises:
        BadRecord: as :func:`decode`.
    """
    with _refused_on_failure(encoded):
        check_file(encoded)
        if is_plain_jpeg(encoded) and encoded.endswith(_END_OF_JPEG) and _orientation(encoded) == 1:
            return encoded
    return decode(encoded, size)


def is_plain_jpeg(encoded: bytes) -> bool:
    """True for a JPEG of three channels of eight bits in YCbCr: libjpeg-turbo alone decodes it as PIL does.

    Raises:
        BadRecord: a JPEG without pixels.
        TooLarge: a JPEG of too many.
    """
    if encoded[:2] != b"\xff\xd8":
        return False
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded, strict=False)
    except Exception:  # ValueError, or KeyError for a colour space that simplejpeg does not name
        return False  # Pillow will say what is wrong with it
    _check_size(width, height)
    return colorspace == "YCbCr"


def _decode_jpeg(encoded: bytes) -> np.ndarray:
    """uint8 [H, W, 3], upright. Where libjpeg warns, pixels are wrong, except for harmless warnings."""
    try:
        pixels = simplejpeg.decode_jpeg(encoded, "RGB")
    except ValueError as error:
        if not any(words in str(error) for words in HARMLESS):
            raise
        pixels = _decode_despite_warning(with_plain_header(encoded))
    note = _orientation(encoded)
    return pixels if note == 1 else upright_pixels(pixels, note)


def _decode_despite_warning(encoded: bytes) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(encoded, "RGB")
    except ValueError as error:
        if "extraneous bytes" not in str(error):
            raise
    return simplejpeg.decode_jpeg(encoded, "RGB", strict=False)  # raises again if it cannot go on after those


def _orientation(encoded: bytes) -> int:
    if not can_be_turned(encoded):
        return 1
    try:
        return orientation(_open(encoded))
    except (OSError, SyntaxError):  # libjpeg-turbo reads some files that Pillow does not open
        return 1


def _decode_other(encoded: bytes) -> np.ndarray:
    """uint8 [H, W, 3], upright, decoded by Pillow: grey, CMYK, palettes, other formats; file names do not matter."""
    image = _open(encoded)
    _check_size(*image.size)
    return np.array(rgb(image))


def _open(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded), formats=FORMATS)


@contextmanager
def _refused_on_failure(encoded: bytes) -> Iterator[None]:
    """Turn any error of a decoder into a BadRecord; for broken files nearly every type of error occurs."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of large sizes, which are checked here, and of odd metadata, which does no harm.
            warnings.simplefilter("ignore")
            yield
    except BadRecord:
        raise
    except UnidentifiedImageError:
        raise BadRecord(NOT_AN_IMAGE, f"{len(encoded)} bytes, first {encoded[:8]!r}") from None
    except UnknownRange as error:
        raise BadRecord(UNKNOWN_RANGE, str(error)) from None
    except (TooLarge, Image.DecompressionBombError, MemoryError) as error:
        raise BadRecord(HUGE_IMAGE, _message(error)) from None
    except Exception as error:
        message = _message(error)
        truncated = "truncated" in message.lower() or "premature end" in message.lower()
        raise BadRecord(TRUNCATED_IMAGE if truncated else CORRUPT_IMAGE, message) from None


def _message(error: Exception) -> str:
    return str(error) or type(error).__name__


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise BadRecord(CORRUPT_IMAGE, f"must have pixels, got {width} x {height}")
    check_size(width, height)
