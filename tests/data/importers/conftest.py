"""Pictures with coloured rectangles, whose boxes are known, and the importer run on them."""

import io
import json
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image, ImageOps

from fgclip_fast.data.importers import import_records
from fgclip_fast.data.records import parse
from fgclip_fast.data.shards import Shards, expand

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
Drawn = namedtuple("Drawn", "name width height boxes")  # boxes: colour -> xyxy, pixels


@pytest.fixture(scope="session")
def colours():
    return COLOURS


@pytest.fixture
def drawn(tmp_path):
    """20 pictures of different sizes, PNG, each with a red, a green and a blue rectangle."""
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    made = []
    for number in range(20):
        width, height = (int(side) for side in random.integers(90, 300, 2))
        pixels = np.full((height, width, 3), random.integers(60, 200), np.uint8)
        pixels[: height // 2, : width // 2] = random.integers(60, 200)  # so that no two are near-duplicates
        boxes = {}
        for i, (colour, rgb) in enumerate(COLOURS.items()):  # in three columns, so that none hides another
            left, right = sorted(int(x) for x in random.choice(width // 3, 2, replace=False))
            top, bottom = sorted(int(y) for y in random.choice(height, 2, replace=False))
            x1, x2 = left + i * (width // 3), right + i * (width // 3) + 1
            boxes[colour] = (x1, top, x2, bottom + 1)
            pixels[top : bottom + 1, x1:x2] = rgb
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
        made.append(Drawn(f"{number}.png", width, height, boxes))
    return made


def _records_of(output, split="*"):
    """(upright pixels, record) of each sample of the shards."""
    paths = expand(f"{output}/{split}-*.tar")
    shards = Shards(paths)
    from fgclip_fast.data.index import index

    for number, path in enumerate(paths):
        for i in range(index(path).samples):
            _, parts = shards.read(number, i)
            record = json.loads(parts.pop("json"))
            image = Image.open(io.BytesIO(next(iter(parts.values()))))
            yield np.asarray(ImageOps.exif_transpose(image).convert("RGB")), record


def _check_pixels(output):
    """Count the usable regions of the shards; each must surround exactly the pixels of the colour it names."""
    regions = 0
    for pixels, record in _records_of(output):
        height, width = pixels.shape[:2]
        for region in parse(record).regions:
            rgb = next(value for name, value in COLOURS.items() if name in region.short)
            rows, columns = np.nonzero((pixels == rgb).all(-1))
            truth = columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height
            assert np.allclose(region.box, truth, atol=2e-3), (record["source"], region)
            regions += 1
    return regions


@pytest.fixture(scope="session")
def records_of():
    return _records_of


@pytest.fixture(scope="session")
def check_pixels():
    return _check_pixels


@pytest.fixture
def importing(tmp_path):
    """Imports into ``tmp_path / "out"`` in this process, with the pictures of ``drawn``."""

    def run(source, output="out", **options):
        options = {"images": tmp_path / "photos", "workers": 1, **options}
        return import_records(source, tmp_path / output, **options)

    return run
