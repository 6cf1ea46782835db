"""Decoding equals PIL to a rounding, and refuses files whose pixels would be wrong."""

import io
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image, ImageOps

from fgclip_fast.data import causes
from fgclip_fast.data.causes import BadRecord
from fgclip_fast.data.decode import decode, encoded_or_decoded, sides
from fgclip_fast.inputs.image import Transform, rgb, width_and_height

SIZE = 96


def pil(file, size=SIZE):
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    image = upright.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def difference(ours, peer):
    assert ours.dtype == torch.uint8 and ours.shape == peer.shape and ours.is_contiguous()
    apart = (ours.int() - peer.int()).abs()
    return apart.float().mean().item(), apart.max().item()


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 40}], ids=str)
@pytest.mark.parametrize("width, height", [(640, 480), (480, 640), (333, 100), (64, 300), (96, 96), (33, 31), (1, 1)])
def test_jpegs_equal_pil(encoded, width, height, options):
    options = {"quality": 90, **options}
    image = Image.open(io.BytesIO(encoded(width, height)))
    image.save(file := io.BytesIO(), "JPEG", **options)
    mean, most = difference(decode(file.getvalue(), SIZE), pil(file.getvalue()))
    assert mean <= 0.01 and most <= 2


@pytest.mark.parametrize(
    "mode, format",
    [("CMYK", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"),
     ("RGB", "WEBP"), ("RGB", "BMP"), ("P", "GIF"), ("CMYK", "TIFF")],
)  # fmt: skip
def test_anything_else_equals_pil_too(encoded, mode, format):
    file = encoded(200, 120, mode, format)
    mean, most = difference(decode(file, SIZE), pil(file))
    assert mean <= 0.01 and most <= 2


def grey(pixels, format):
    """A grey image of as many bits as the numbers have, as a file."""
    Image.fromarray(pixels).save(file := io.BytesIO(), format)
    return file.getvalue()


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])  # of PPM Pillow makes mode I, of the others I;16
def test_grey_of_16_bits_is_that_of_8(format):
    ramp = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    image = decode(grey(ramp, format), SIZE)
    assert torch.equal(image, decode(grey((ramp >> 8).astype(np.uint8), "PNG"), SIZE))
    assert image.float().mean().item() == pytest.approx(127.5, abs=1) and image.min() <= 1 and image.max() >= 254


@pytest.mark.parametrize("pixels", [np.eye(9, dtype=np.float32), np.eye(9, dtype=np.int32) * 70_000], ids=["F", "I"])
def test_pixels_of_unknown_range_are_refused(pixels):
    for take in (decode, encoded_or_decoded):
        with pytest.raises(BadRecord, match=r"pixels of unknown range: pixels .*; save them as 8 bits") as bad:
            take(grey(pixels, "TIFF"), SIZE)
        assert bad.value.cause == causes.UNKNOWN_RANGE and bad.value.cause in causes.BAD


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_an_image_is_turned_upright_everywhere(encoded, tmp_path, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(120, 60, format=format, exif=exif)
    (tmp_path / "a").write_bytes(file)
    opened = Image.open(io.BytesIO(file))
    ours = decode(file, SIZE)
    assert difference(ours, pil(file))[0] <= 0.01
    assert (opened.size != (120, 60)) == (format == "TIFF" and orientation >= 5), "Pillow turns no other by itself"
    upright = (120, 60) if orientation < 5 else (60, 120)
    assert width_and_height(opened) == width_and_height(tmp_path / "a") == sides(file) == upright
    for take in (opened, tmp_path / "a", opened, rgb(opened)):
        assert width_and_height(take) == upright and difference(Transform(SIZE)(take), ours)[0] <= 0.01
    left = encoded_or_decoded(file, SIZE)
    assert left == file if isinstance(left, bytes) else torch.equal(left, ours)
    assert isinstance(left, bytes) == (format == "JPEG" and orientation == 1)


def test_only_a_note_that_can_be_read_turns_an_image(encoded):
    file, note = encoded(120, 60), b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0%c\0\0\0\0\0\0"
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    segment = lambda content: b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content  # noqa: E731
    plain, turned = decode(file, SIZE), decode(file[:2] + segment(note % 6) + file[2:], SIZE)
    assert not torch.equal(plain, turned)
    for other in (note % 0, note % 9, note[:24], b"Exif\0\0nonsense\x01\x12\0\x03", note % 1):
        assert torch.equal(decode(file[:2] + segment(other) + file[2:], SIZE), plain)
    assert torch.equal(decode(file[:2] + segment(xmp) + file[2:], SIZE), turned)


def bomb():
    """A PNG of a few kilobytes whose header says 30,000 x 30,000 pixels."""
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
    """The same file without its quantization tables; its header and end are valid."""
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
def test_files_that_cannot_be_decoded_have_a_cause(encoded, spoil, cause):
    for take in (decode, encoded_or_decoded):
        if take is encoded_or_decoded and (spoil is without_tables or cause == causes.TRUNCATED_IMAGE):
            continue  # only a decoder finds these
        with pytest.raises(BadRecord) as bad:
            take(spoil(encoded(160, 120)), SIZE)
        assert bad.value.cause == cause


def test_a_truncated_png_is_refused(encoded):
    with pytest.raises(BadRecord) as bad:
        decode(encoded(format="PNG")[:-500], SIZE)
    assert bad.value.cause == causes.TRUNCATED_IMAGE


def mutations(file, count):
    """The file with bytes zeroed, flipped, cut out or put in; every other time near its start, where headers are."""
    random = np.random.default_rng(0)
    for turn in range(count):
        broken = bytearray(file)
        at = int(random.integers(len(file) if turn % 2 else 300))
        kind, length = random.integers(4), int(random.integers(1, 40))
        if kind == 0:
            broken[at : at + length] = bytes(length)
        elif kind == 1:
            broken[at] ^= int(random.integers(1, 256))
        elif kind == 2:
            del broken[at : at + length]
        else:
            broken[at:at] = random.bytes(length)
        yield bytes(broken)


@pytest.mark.parametrize(
    "mode, format",
    [("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("RGB", "WEBP"), ("P", "GIF"), ("RGB", "BMP"), ("RGB", "TIFF"),
     ("RGB", "PPM")],
)  # fmt: skip
def test_a_broken_file_is_an_image_or_a_bad_record(encoded, mode, format):
    refused = []
    for broken in mutations(encoded(64, 48, mode, format), 400):
        for take in (decode, encoded_or_decoded, lambda file, _: sides(file)):
            try:
                take(broken, 16)
            except BadRecord as bad:
                refused.append(bad)
    assert len(refused) > 50 and {bad.cause for bad in refused} <= set(causes.BAD)


@pytest.mark.parametrize(
    "error, cause",
    [
        (MemoryError(), causes.HUGE_IMAGE),
        (Image.DecompressionBombError("vast"), causes.HUGE_IMAGE),
        (OSError("image file is truncated"), causes.TRUNCATED_IMAGE),
        (SyntaxError("broken PNG file"), causes.CORRUPT_IMAGE),
        (struct.error("unpack requires 4 bytes"), causes.CORRUPT_IMAGE),
        (OverflowError(), causes.CORRUPT_IMAGE),
    ],
    ids=repr,
)
def test_any_error_of_a_decoder_is_a_bad_record(encoded, monkeypatch, error, cause):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Image, "open", fail)
    for take in (decode, encoded_or_decoded, lambda file, _: sides(file)):
        with pytest.raises(BadRecord, match=str(error) or type(error).__name__) as bad:
            take(encoded(format="PNG"), SIZE)
        assert bad.value.cause == cause


def test_bytes_after_the_end_and_between_markers_do_no_harm(encoded):
    file = encoded(160, 120)
    for harmless in (file + bytes(100), file[:-2] + bytes(3) + file[-2:]):
        assert torch.equal(decode(harmless, SIZE), decode(file, SIZE))


def png_of(width, height):
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def with_scans(file, count):
    """A JPEG that repeats the beginning of its first scan."""
    at = file.index(b"\xff\xda")
    return file[:at] + file[at : at + 12] * count + file[at:]


@pytest.mark.parametrize(
    "costly, words",
    [
        (lambda file: png_of(1, 2**16 + 1), "sides of at most 65536 pixels, got 1 x 65537"),
        (lambda file: with_scans(file.replace(b"\xff\xc0", b"\xff\xc2"), 128), "at most 128 scans, got 129"),
        (lambda file: b"P3 9 9 255 ".ljust(2**24 + 1, b"1"), "a PPM in digits must have at most"),
        (lambda file: b"P6\n#" + b"x" * 2**16 + b"\n9 9 255\n" + bytes(243), "header must end within 65536 bytes"),
        (lambda file: b"P6\n" + b"#\n" * 2**15 + b"9 9 255\n" + bytes(243), "header must end within 65536 bytes"),
    ],
    ids=["side", "scans", "digits", "comment", "comments"],
)
def test_a_small_file_that_would_cost_minutes_is_refused_at_once(encoded, costly, words):
    with pytest.raises(BadRecord, match=words) as bad:
        decode(costly(encoded()), SIZE)
    assert bad.value.cause == causes.HUGE_IMAGE


def with_warning(file, kind):
    """The same JPEG with something that libjpeg warns of, though its pixels are whole."""
    scan, revision = file.index(b"\xff\xda"), file.index(b"JFIF\0") + 5
    end = scan + 2 + int.from_bytes(file[scan + 2 : scan + 4], "big")
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\2"
    icc = b"\xff\xe2\0\x40ICC_PROFILE\0\5\2" + bytes(48)
    return {
        "scan parameters": file[: end - 3] + bytes(3) + file[end:],
        "revision": file[:revision] + b"\2" + file[revision + 1 :],
        "adobe": file[:2] + adobe + file[20:],
        "colour profile": file[:2] + icc + file[2:],
    }[kind]


@pytest.mark.parametrize("kind", ["scan parameters", "revision", "adobe", "colour profile"])
def test_what_libjpeg_warns_of_without_need_does_no_harm(encoded, kind):
    file = encoded(160, 120)
    warned = with_warning(file, kind)
    with pytest.raises(ValueError):
        simplejpeg.decode_jpeg(warned)
    assert torch.equal(decode(warned, SIZE), decode(file, SIZE))
    with pytest.raises(BadRecord, match="truncated"):
        decode(warned[: len(file) // 2], SIZE)
    at = len(warned) - 2000
    with pytest.raises(BadRecord, match="corrupt"):
        decode(warned[:at] + b"\xff\0" * 80 + warned[at + 160 :], SIZE)


def test_only_whole_plain_jpegs_are_left_to_dali(encoded):
    assert encoded_or_decoded(encoded(), SIZE) == encoded()
    for file in (encoded() + b"\0", encoded(format="PNG"), encoded(mode="CMYK"), encoded(mode="L")):
        assert encoded_or_decoded(file, SIZE).shape == (3, SIZE, SIZE)
