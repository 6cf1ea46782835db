"""Refuse image files that would keep a decoder busy for minutes or take gigabytes: files come from anywhere."""

import os
import re

MAX_PIXELS = int(os.environ.get("FGCLIP_MAX_PIXELS", 2**27))
"""Larger images are refused: their pixels alone take 400 MB, and decoding them 1 to 2.4 GB."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Formats that are read, by Pillow's names. For some others, such as EPS, Pillow runs another program."""
_MAX_SIDE = 2**16  # JPEG's own limit; resizing a longer one takes gigabytes
_MAX_SCANS = 128  # of a progressive JPEG; each runs over the whole image, and encoders write about ten
_MAX_DIGITS = 2**24  # bytes of a PPM in decimal digits, which Pillow reads one by one
_MAX_HEADER = 2**16  # bytes of a PPM's, comments included, likewise
_PPM_HEADER = re.compile(rb"P[1-6](?:(?:\s|#[^\n]*\n)+\d+){2,3}\s")
_SEQUENTIAL = (b"\xff\xc0", b"\xff\xc1")


class TooLarge(ValueError):
    """An image that takes too much time or memory to decode."""


def check_file(encoded: bytes) -> None:
    """Refuse small files whose decoding takes minutes.

    Raises:
        TooLarge: too many scans of a progressive JPEG, or a PPM of too many digits or too long a header.
    """
    if encoded[:2] == b"\xff\xd8" and not is_sequential(encoded):
        scans = encoded.count(b"\xff\xda")
        if scans > _MAX_SCANS:
            raise TooLarge(f"must have at most {_MAX_SCANS} scans, got {scans}")
    if encoded[:2] in (b"P1", b"P2", b"P3") and len(encoded) > _MAX_DIGITS:
        raise TooLarge(f"a PPM in digits must have at most {_MAX_DIGITS} bytes, got {len(encoded)}")
    is_ppm = encoded[:1] == b"P" and encoded[1:2].isdigit()
    if is_ppm and len(encoded) > _MAX_HEADER and _PPM_HEADER.match(encoded[:_MAX_HEADER]) is None:
        raise TooLarge(f"a PPM's header must end within {_MAX_HEADER} bytes")


def check_size(width: int, height: int) -> None:
    """Refuse an image of too many pixels, or with too long a side.

    Raises:
        TooLarge: the message says the bound.
    """
    if max(width, height) > _MAX_SIDE:
        raise TooLarge(f"must have sides of at most {_MAX_SIDE} pixels, got {width} x {height}")
    if width * height > MAX_PIXELS:
        raise TooLarge(f"must have at most {MAX_PIXELS} pixels, got {width} x {height}")


def is_sequential(encoded: bytes) -> bool:
    """True if a JPEG's header can be followed to a frame of the plain kind, whose pixels are decoded in one go."""
    at = 2
    while encoded[at : at + 1] == b"\xff":
        marker = encoded[at : at + 2]
        if marker in _SEQUENTIAL:
            return True
        if marker in (b"\xff\xc2", b"\xff\xda"):
            return False
        at += 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    return False
