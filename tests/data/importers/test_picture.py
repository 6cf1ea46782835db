"""EXIF rotation: which picture boxes refer to, and where they lie upright."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from fgclip_fast.data.causes import BadRecord
from fgclip_fast.data.importers.picture import picture, turned_upright, view_of


def turned(width, height, orientation, box=None, format="JPEG"):
    """An image file with an EXIF rotation; ``box`` (stored pixels) is white on black."""
    pixels = np.zeros((height, width), np.uint8)
    if box:
        pixels[box[1] : box[3], box[0] : box[2]] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_of_the_stored_picture_surrounds_the_same_pixels_upright(orientation, format):
    box = (8, 16, 24, 40)
    encoded = turned(80, 48, orientation, box, format)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
    found = picture(encoded)
    width, height = found.size("upright")
    assert upright.shape == (height, width)
    x1, y1, x2, y2 = turned_upright([box[0] / 80, box[1] / 48, box[2] / 80, box[3] / 48], orientation)
    mask = np.zeros((height, width), bool)
    mask[round(y1 * height) : round(y2 * height), round(x1 * width) : round(x2 * width)] = True
    assert (mask == (upright > 128)).all()


def test_the_annotated_size_tells_the_view():
    found = picture(turned(80, 48, 6))
    assert view_of(found, (80, 48)) == "stored" and view_of(found, (480, 800)) == "upright"
    assert view_of(found, None) is None
    assert view_of(picture(turned(48, 48, 6)), (48, 48)) is None
    assert view_of(picture(turned(80, 48, 3)), (80, 48)) is None  # half a turn keeps the size
    assert view_of(picture(turned(80, 48, 1)), None) == "upright"


def test_a_size_of_neither_view_is_that_of_another_image():
    with pytest.raises(BadRecord, match=r"annotated size of another image: must be 533 x 800, got 800 x 533"):
        view_of(picture(turned(533, 800, 1)), (800, 533))


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_upright(orientation):
    assert picture(turned(80, 48, orientation)).orientation == 1


def test_kinds_are_known_by_content():
    assert [picture(turned(8, 8, 1, format=name)).kind for name in ("JPEG", "PNG", "WEBP", "TIFF")] == [
        "jpg", "png", "webp", "tif",
    ]  # fmt: skip
