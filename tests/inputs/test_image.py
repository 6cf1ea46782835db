"""Images become squares of bytes as Pillow makes them, and CLIP's numbers on the device."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError
from torch._subclasses.fake_tensor import FakeTensorMode

from fgclip_fast.data.decode import decode
from fgclip_fast.inputs import image as module
from fgclip_fast.inputs.image import MEAN, STD, Transform, UnknownRange, normalize, width_and_height


def noise(width=37, height=23, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def test_images_are_squashed_as_pillow_does():
    expected = np.array(noise().resize((16, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    ours = Transform(16)(noise())
    assert (ours.dtype, ours.is_contiguous()) == (torch.uint8, True)
    assert np.array_equal(ours.numpy(), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode):
    assert Transform(8)(noise(mode=mode)).shape == (3, 8, 8)


@pytest.mark.parametrize("dtype", [np.uint16, ">u2", np.int32], ids=str)  # modes I;16, I;16B and I
def test_grey_of_16_bits_is_that_of_8(tmp_path, dtype):
    ramp = np.arange(65_536).reshape(256, 256)
    grey = Image.fromarray(ramp.astype(dtype))
    grey.save(tmp_path / "a.tif")
    expected = Transform(64)(Image.fromarray((ramp >> 8).astype(np.uint8)))
    assert torch.equal(Transform(64)(grey), expected) and torch.equal(Transform(64)(tmp_path / "a.tif"), expected)
    assert 126 < expected.float().mean() < 129


@pytest.mark.parametrize("pixels", [np.eye(9, dtype=np.float32), np.eye(9, dtype=np.int32) * -1], ids=["F", "I"])
def test_pixels_of_unknown_range_are_refused(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(UnknownRange, match=r"pixels .*; save them as 8 bits"):
        Transform(8)(Image.fromarray(pixels))
    with pytest.raises(ValueError, match=r"a\.tif cannot be read: pixels .*; save them as 8 bits"):
        Transform(8)(tmp_path / "a.tif")


@pytest.mark.parametrize("take", [Transform(8), width_and_height], ids=["transform", "size"])
@pytest.mark.parametrize("error", [SyntaxError("broken"), OSError("truncated"), MemoryError()], ids=repr)
def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, take, error):
    def fail(*_, **__):
        raise error

    (tmp_path / "a.png").write_bytes(b"")
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(ValueError, match=rf"image: .*a\.png cannot be read: {str(error) or 'MemoryError'}"):
        take(tmp_path / "a.png")


@pytest.mark.parametrize("size", ["1 8", "1 70000", "13000 13000"])
def test_a_file_that_takes_too_long_or_too_much_memory_is_refused(tmp_path, size):
    comment = b"#" * 2**17 if size == "1 8" else b"#"
    (tmp_path / "a.ppm").write_bytes(b"P6 " + comment + b"\n" + size.encode() + b" 255\n" + bytes(24))
    with pytest.raises(ValueError, match=r"a\.ppm cannot be read: (must have|a PPM's header)"):
        Transform(8)(tmp_path / "a.ppm")


def test_no_format_is_read_for_which_pillow_runs_another_program(tmp_path):
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(UnidentifiedImageError):
        Transform(8)(tmp_path / "a.eps")


def test_a_file_that_is_missing_or_not_an_image_raises_as_in_pillow(tmp_path):
    with pytest.raises(FileNotFoundError):
        Transform(8)(tmp_path / "a.png")
    (tmp_path / "a.png").write_text("<html>")
    with pytest.raises(UnidentifiedImageError):
        Transform(8)(tmp_path / "a.png")


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_a_path_is_opened(tmp_path, kind):
    noise().save(tmp_path / "a.png")
    assert torch.equal(Transform(8)(kind(tmp_path / "a.png")), Transform(8)(noise()))


SHAPES = [
    (37, 23), (23, 37), (10, 1000), (1000, 10), (97, 1000), (64, 300), (230, 240), (8, 8), (64, 64), (3, 2), (1, 1),
    (1, 300), (300, 1), (500, 3),
]  # fmt: skip


@pytest.mark.parametrize("size", [8, 64, 224])
@pytest.mark.parametrize("width, height", SHAPES)
def test_a_tensor_is_squashed_as_pillow_does(width, height, size):
    image = noise(width, height)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    off = (Transform(size)(pixels).int() - Transform(size)(image).int()).abs()
    assert off.max() <= (1 if (width, height) == (37, 23) and size < 224 else 2) and off.float().mean() <= 0.1
    assert torch.equal(Transform(size)(pixels.contiguous()), Transform(size)(pixels)), "in either memory format"
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file := io.BytesIO(), "PNG")
    assert torch.equal(decode(file.getvalue(), size), Transform(size)(pixels)), "as in training"


def test_a_squashed_image_stays_as_it_is():
    once = Transform(8)(noise())
    assert torch.equal(Transform(8)(once), once)


@pytest.mark.parametrize("wrong", [torch.zeros(3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8), 3])
def test_error_shows_the_value_that_came(wrong):
    with pytest.raises(ValueError, match=r"image: .*got"):
        Transform(8)(wrong)


def test_normalises_as_clip_does():
    image = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (MEAN, STD))
    torch.testing.assert_close(normalize(image), ((image / 255.0 - mean) / std).float())


def fake(image):
    with FakeTensorMode() as mode:
        normalize(mode.from_tensor(image))


class Normalize(torch.nn.Module):
    def forward(self, image):
        return normalize(image)


@pytest.mark.parametrize(
    "trace",
    [
        lambda image: torch.export.export(Normalize(), (image,), strict=False).module()(image),
        lambda image: torch.export.export(Normalize(), (image,), strict=True).module()(image),
        lambda image: torch.compile(Normalize(), backend="eager", fullgraph=True)(image),
        fake,
    ],
    ids=["export", "strict export", "compile", "fake"],
)
def test_a_trace_leaves_nothing_behind(trace):
    image = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    module._channels.cache_clear()
    for _ in range(2):  # before the constants are kept, and after
        traced = trace(image)
        expected = normalize(image)
        assert type(expected) is torch.Tensor and (traced is None or torch.equal(traced, expected))


def test_size_of_an_image_is_width_and_height(tmp_path):
    noise().save(tmp_path / "a.jpg")
    pixels = torch.zeros(3, 23, 37, dtype=torch.uint8)
    assert {width_and_height(x) for x in (tmp_path / "a.jpg", str(tmp_path / "a.jpg"), noise(), pixels)} == {(37, 23)}


def test_an_array_has_a_width_and_a_height():
    assert width_and_height(np.zeros((3, 5, 3), np.uint8)) == (5, 3)
