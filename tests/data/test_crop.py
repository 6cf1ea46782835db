"""Views: boxes stay on what they held, few regions are lost, and visits are reproducible."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fgclip_fast.config import Data
from fgclip_fast.data.crop import view
from fgclip_fast.data.loader import Loader
from fgclip_fast.data.records import Record, Region
from fgclip_fast.inputs.tokenizer import Tokenizer

W, H = 90, 60
DATA = Data(train="", val="", workers=0, decoder="cpu")


def painted(*boxes):
    """A black image and its record: region n is a rectangle of value n + 1, in pixels."""
    image = torch.zeros(3, H, W, dtype=torch.uint8)
    for n, (x1, y1, x2, y2) in enumerate(boxes, 1):
        image[:, y1:y2, x1:x2] = n
    fractions = [(x1 / W, y1 / H, x2 / W, y2 / H) for x1, y1, x2, y2 in boxes]
    return Record("a", "b", tuple(Region(box, f"{n}", "") for n, box in enumerate(fractions, 1))), image


def extent(image, value):
    """The box of the pixels of a value, as fractions of the image."""
    rows, columns = (image[0] == value).nonzero(as_tuple=True)
    _, height, width = image.shape
    sides = columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height
    return [x.item() for x in sides]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [(0.3, 0.9), (1.0, 1.0)])
def test_boxes_hold_the_pixels_that_they_held_before(crop, flip):
    record, image = painted((3, 5, 30, 40), (40, 10, 80, 30), (35, 40, 60, 58))
    areas = {"1": 27 * 35, "2": 40 * 20, "3": 25 * 18}
    lost, views = 0, set()
    for seed in range(60):
        seen, part = view(record, image, replace(DATA, crop=crop, flip=flip), np.random.default_rng(seed))
        share = part[0].numel() / image[0].numel()
        assert crop[0] - 0.03 <= share <= crop[1] + 0.03
        assert part.shape[2] / part.shape[1] == pytest.approx(W / H, rel=0.05) and part.dtype == torch.uint8
        for region in seen.regions:
            assert region.box == pytest.approx(extent(part, int(region.short)), abs=1e-6)
        for name, area in areas.items():
            left = int((part[0] == int(name)).sum())
            shown = name in [region.short for region in seen.regions]
            assert shown == (2 * left >= area), (seed, name)
            lost += not shown
        views.add(bytes(part.contiguous().numpy()))
    assert (lost > 0) == (crop != (1.0, 1.0))
    assert len(views) == (2 if crop == (1.0, 1.0) and flip else 1 if crop == (1.0, 1.0) else len(views))
    assert crop == (1.0, 1.0) or len(views) > 50


def test_an_image_whose_regions_would_all_be_lost_is_shown_whole():
    record, image = painted((0, 0, 4, 4))
    shapes = set()
    for seed in range(30):
        seen, part = view(record, image, replace(DATA, crop=(0.3, 0.4)), np.random.default_rng(seed))
        assert [region.short for region in seen.regions] == ["1"]
        shapes.add(tuple(part.shape))
    assert (3, H, W) in shapes
    bare, part = view(record._replace(regions=()), image, replace(DATA, crop=(0.3, 0.4)), np.random.default_rng(0))
    assert bare.regions == () and part.shape[1] < H


def test_what_lies_outside_the_image_does_not_count_as_lost():
    record, image = painted((0, 0, 45, 60))
    wide = record._replace(regions=(record.regions[0]._replace(box=(-2.0, -1.0, 0.5, 1.0)),))
    cut = [view(wide, image, replace(DATA, crop=(0.8, 0.9)), np.random.default_rng(seed)) for seed in range(20)]
    assert all(part.shape[1] < H for _, part in cut)
    assert all(min(seen.regions[0].box) >= 0 and max(seen.regions[0].box) <= 1 for seen, _ in cut)


def batches(shards, count, after=0, **settings):
    data = replace(DATA, train=str(shards / "train-*.tar"), **settings)
    loader = Loader(data, image_size=32, batch_size=8, seed=3, tokenizer=Tokenizer())
    arriving = loader.batches(after=after)
    return [next(arriving)[0] for _ in range(count)]


def test_a_visit_has_the_same_view_in_any_worker_and_after_a_restart(shards):
    settings = dict(crop=(0.4, 0.8), flip=True)
    here = batches(shards, 8, **settings)
    for found in (batches(shards, 8, workers=2, **settings), [None] * 5 + batches(shards, 3, after=5, **settings)):
        for a, b in zip(here, found, strict=True):
            same = b is None or (torch.equal(a.image, b.image) and torch.equal(a.boxes, b.boxes))
            assert same and (b is None or torch.equal(a.texts.token, b.texts.token))
    plain = batches(shards, 1)[0]
    assert not torch.equal(here[0].image, plain.image) and here[0].image.shape == plain.image.shape


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"data.crop must be in \(0, 1\], got \(0.0, 1.0\)"):
        Data(crop=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"data.crop must be least and largest, in this order, got \(0.9, 0.5\)"):
        Data(crop=(0.9, 0.5))
    with pytest.raises(ValueError, match=r"data.decoder must be cpu or auto with data.crop or data.flip, got dali"):
        Data(decoder="dali", flip=True)
