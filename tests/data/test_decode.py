"""Decoding equals PIL to a rounding, and refuses what would train on grey."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip_fast.data import causes
from fgclip_fast.data.causes import BadRecord
from fgclip_fast.data.decode import decode, keep_encoded, sides

SIZE = 96


def pil(file, size=SIZE):
    image = Image.open(io.BytesIO(file)).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def difference(ours, peer):
    assert ours.dtype == torch.uint8 and ours.shape == peer.shape and ours.is_contiguous()
    apart = (ours.int() - peer.int()).abs()
    return apart.float().mean().item(), apart.max().item()


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 40}], ids=str)
@pytest.mark.parametrize("width, height", [(640, 480), (480, 640), (333, 100), (64, 300), (96, 96), (33, 31), (1, 1)])
def test_jpegs_equal_pil(encoded, width, height, options):
    options = {"quality": 90, **options}
    picture = Image.open(io.BytesIO(encoded(width, height)))
    picture.save(file := io.BytesIO(), "JPEG", **options)
    mean, most = difference(decode(file.getvalue(), SIZE), pil(file.getvalue()))
    assert mean <= 0.01 and most <= 2


@pytest.mark.parametrize(
    "mode, format",
    [("CMYK", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG"),
     ("LA", "PNG"), ("RGB", "WEBP"), ("RGB", "BMP"), ("P", "GIF"), ("CMYK", "TIFF")],
)  # fmt: skip
def test_anything_else_equals_pil_too(encoded, mode, format):
    file = encoded(200, 120, "RGB" if mode == "I;16" else mode, format)
    if mode == "I;16":
        Image.fromarray(np.arange(60_000, dtype=np.uint16).reshape(200, 300)).save(out := io.BytesIO(), "PNG")
        file = out.getvalue()
    mean, most = difference(decode(file, SIZE), pil(file))
    assert mean <= 0.01 and most <= 2


def test_orientation_is_ignored_as_pil_does(encoded):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    file = encoded(120, 60, exif=exif)
    assert difference(decode(file, SIZE), pil(file))[0] <= 0.01 and sides(file) == (120, 60)


def bomb():
    """A PNG of a few kilobytes that says it is 30,000 pixels square."""
    chunk = lambda name, data: (  # noqa: E731
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    )
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def huge_jpeg(file):
    """The same file with 60,000 x 60,000 written in its header."""
    at = file.index(b"\xff\xc0") + 5
    return file[:at] + struct.pack(">HH", 60_000, 60_000) + file[at + 4 :]


def without_tables(file):
    """The same file without its quantization tables; its header and end are as they should be."""
    while (at := file.find(b"\xff\xdb")) >= 0:
        file = file[:at] + file[at + 2 + int.from_bytes(file[at + 2 : at + 4], "big") :]
    return file


@pytest.mark.parametrize(
    "spoil, cause",
    [
        (lambda file: file[: len(file) // 2], causes.TRUNCATED_IMAGE),
        (lambda file: file[:-2], causes.TRUNCATED_IMAGE),
        (lambda file: file[:200], causes.TRUNCATED_IMAGE),
        (lambda file: file[: len(file) // 2] + b"\xff\xd9", causes.TRUNCATED_IMAGE),
        (without_tables, causes.CORRUPT_IMAGE),
        (lambda file: b"", causes.NOT_AN_IMAGE),
        (lambda file: b"<html>not found</html>", causes.NOT_AN_IMAGE),
        (lambda file: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", causes.NOT_AN_IMAGE),
        (lambda file: bomb(), causes.HUGE_IMAGE),
        (huge_jpeg, causes.HUGE_IMAGE),
    ],
    ids=["half", "no end", "head", "half with an end", "no tables", "empty", "html", "eps", "bomb", "huge"],
)
def test_what_cannot_be_decoded_has_a_cause(encoded, spoil, cause):
    for take in (decode, keep_encoded):
        if take is keep_encoded and (spoil is without_tables or cause == causes.TRUNCATED_IMAGE):
            continue  # what only a decoder sees
        with pytest.raises(BadRecord) as bad:
            take(spoil(encoded(160, 120)), SIZE)
        assert bad.value.cause == cause


def test_a_truncated_png_is_refused(encoded):
    with pytest.raises(BadRecord) as bad:
        decode(encoded(format="PNG")[:-500], SIZE)
    assert bad.value.cause == causes.TRUNCATED_IMAGE


def test_bytes_after_the_end_and_between_markers_do_no_harm(encoded):
    file = encoded(160, 120)
    for harmless in (file + bytes(100), file[:-2] + bytes(3) + file[-2:]):
        assert torch.equal(decode(harmless, SIZE), decode(file, SIZE))


def test_only_whole_plain_jpegs_are_left_to_dali(encoded):
    assert keep_encoded(encoded(), SIZE).shape == (len(encoded()),)
    for file in (encoded() + b"\0", encoded(format="PNG"), encoded(mode="CMYK"), encoded(mode="L")):
        assert keep_encoded(file, SIZE).shape == (3, SIZE, SIZE)
