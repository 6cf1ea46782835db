"""Near-duplicates: the same picture resized and saved again, not another."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from fgclip_fast.data import duplicates
from fgclip_fast.data.decode import decode
from fgclip_fast.data.duplicates import DISTANCE, SIZE, groups, hashes_of


def hashes(images):
    return np.array([hashes_of(decode(image, SIZE)) for image in images], np.uint64)


def again(encoded, scale, quality):
    image = Image.open(io.BytesIO(encoded))
    file = io.BytesIO()
    image.resize([round(side * scale) for side in image.size]).save(file, "JPEG", quality=quality)
    return file.getvalue()


def test_copies_join_their_image_and_others_do_not(encoded):
    images = [encoded(200, 150, seed=seed) for seed in range(40)]
    copies = [again(image, scale, quality) for image in images for scale, quality in ((0.5, 80), (1.3, 60))]
    digests = np.random.default_rng(0).integers(0, 256, (120, 16), dtype=np.uint8)
    found = groups(digests, hashes(images + copies))
    assert found[:40].tolist() == list(range(40)), "different images stay apart"
    truth = [i for i in range(40) for _ in range(2)]
    assert sum(a == b for a, b in zip(found[40:], truth, strict=True)) >= 78


def test_equal_files_are_one_group():
    digests = np.zeros((5, 16), np.uint8)
    digests[[1, 3], 15] = 7
    digests[4] = 1
    random = np.random.default_rng(0).integers(0, 2**64, (5, 3), dtype=np.uint64)
    assert groups(digests, random).tolist() == [0, 1, 0, 1, 4]


@pytest.mark.parametrize("bits", [0, DISTANCE, DISTANCE + 1])
@pytest.mark.parametrize("which", range(3))
def test_hashes_join_up_to_the_distance_wherever_the_bits_lie(which, bits):
    random = np.random.default_rng(bits)
    one = random.integers(0, 2**64, (300, 3), dtype=np.uint64)
    two = one.copy()
    two[:, which] ^= np.array(
        [sum(1 << int(i) for i in random.choice(64, bits, replace=False)) for _ in one], np.uint64
    )
    digests = random.integers(0, 256, (600, 16), dtype=np.uint8)
    found = groups(digests, np.concatenate([one, two]))
    assert (found[300:] == np.arange(300)).all() == (bits <= DISTANCE)
    assert (found[:300] == np.arange(300)).all()


def drawing(colour, background=(240, 240, 240)):
    """A disk and a bar, a tenth of the image."""
    image = Image.new("RGB", (240, 180), background)
    pen = ImageDraw.Draw(image)
    pen.ellipse((60, 50, 110, 100), fill=colour)
    pen.rectangle((120, 90, 180, 120), fill=colour)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_drawings_that_differ_only_in_colour_stay_apart_and_their_copies_do_not():
    colours = [(200, 30, 30), (30, 30, 200), (30, 160, 30), (220, 140, 30), (120, 40, 140)]
    images = [drawing(colour) for colour in colours] + [drawing((200, 30, 30), (90, 90, 90))]
    copies = [again(image, scale, quality) for image in images for scale, quality in ((0.5, 80), (1.3, 60))]
    digests = np.random.default_rng(0).integers(0, 256, (18, 16), dtype=np.uint8)
    assert groups(digests, hashes(images + copies)).tolist() == [*range(6), *(i for i in range(6) for _ in range(2))]


def test_many_drawings_on_white_are_no_chain_of_near_duplicates_and_are_not_all_compared(monkeypatch):
    random, images, compared = np.random.default_rng(0), [], []
    for _ in range(1000):
        image = Image.new("RGB", (SIZE, SIZE), "white")
        pen = ImageDraw.Draw(image)
        for _ in range(random.integers(1, 4)):
            (x, y), (width, height) = random.integers(8, 50, 2).tolist(), random.integers(8, 24, 2).tolist()
            shape = pen.ellipse if random.random() < 0.5 else pen.rectangle
            shape((x, y, x + width, y + height), fill=tuple(random.integers(0, 256, 3).tolist()))
        images.append(hashes_of(torch.from_numpy(np.array(image)).permute(2, 0, 1)))
    near = duplicates._near
    monkeypatch.setattr(duplicates, "_near", lambda a, b: (compared.append(len(a)), near(a, b))[1])
    found = groups(random.integers(0, 256, (1000, 16), dtype=np.uint8), np.array(images, np.uint64))
    assert np.bincount(found).max() <= 20, "hundreds were, when even areas counted as agreement"
    assert 0 < sum(compared) <= 1000 * 64 * duplicates._NEIGHBOURS


def test_pairs_that_are_found_again_and_again_take_no_memory_and_make_the_same_groups(monkeypatch):
    """Each image is near to forty others, in most bands."""
    random, kept = np.random.default_rng(0), []
    ones = random.integers(0, 2**64, (20, 1, 3), dtype=np.uint64)
    near = (ones ^ np.left_shift(np.uint64(1), random.integers(0, 64, (20, 40, 3), dtype=np.uint64))).reshape(-1, 3)
    digests = random.integers(0, 256, (800, 16), dtype=np.uint8)
    joined = duplicates._joined
    monkeypatch.setattr(
        duplicates, "_joined", lambda pairs: (kept.append(sum(len(a) for a, _ in pairs)), joined(pairs))[1]
    )
    assert groups(digests, near).tolist() == [40 * (number // 40) for number in range(800)]
    assert len(kept) > 2 and kept[-1] <= 800


def test_no_images_are_no_groups():
    assert groups(np.zeros((0, 16), np.uint8), np.zeros((0, 3), np.uint64)).tolist() == []
