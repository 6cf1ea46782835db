"""Near-duplicates: the same picture resized and saved again, not another."""

import io

import numpy as np
import pytest
from PIL import Image

from fgclip_fast.data.decode import decode
from fgclip_fast.data.duplicates import DISTANCE, SIZE, difference_hashes, groups


def hashes(images):
    pairs = [difference_hashes(decode(image, SIZE)) for image in images]
    return tuple(np.array(column, np.uint64) for column in zip(*pairs, strict=True))


def again(encoded, scale, quality):
    image = Image.open(io.BytesIO(encoded))
    file = io.BytesIO()
    image.resize([round(side * scale) for side in image.size]).save(file, "JPEG", quality=quality)
    return file.getvalue()


def test_copies_join_their_image_and_others_do_not(encoded):
    images = [encoded(200, 150, seed=seed) for seed in range(40)]
    copies = [again(image, scale, quality) for image in images for scale, quality in ((0.5, 80), (1.3, 60))]
    digests = np.random.default_rng(0).integers(0, 256, (120, 16), dtype=np.uint8)
    found = groups(digests, *hashes(images + copies))
    assert found[:40].tolist() == list(range(40)), "different images stay apart"
    truth = [i for i in range(40) for _ in range(2)]
    assert sum(a == b for a, b in zip(found[40:], truth, strict=True)) >= 78


def test_equal_files_are_one_group():
    digests = np.zeros((5, 16), np.uint8)
    digests[[1, 3], 15] = 7
    digests[4] = 1
    random = np.random.default_rng(0).integers(0, 2**64, (2, 5), dtype=np.uint64)
    assert groups(digests, *random).tolist() == [0, 1, 0, 1, 4]


@pytest.mark.parametrize("bits", [0, DISTANCE, DISTANCE + 1])
def test_hashes_join_up_to_the_distance_wherever_the_bits_lie(bits):
    random = np.random.default_rng(bits)
    one = random.integers(0, 2**64, 300, dtype=np.uint64)
    flipped = [sum(1 << int(i) for i in random.choice(64, bits, replace=False)) for _ in one]
    two = one ^ np.array(flipped, np.uint64)
    digests = random.integers(0, 256, (600, 16), dtype=np.uint8)
    columns = np.tile(random.integers(0, 2**64, 300, dtype=np.uint64), 2)
    found = groups(digests, np.concatenate([one, two]), columns)
    assert (found[300:] == np.arange(300)).all() == (bits <= DISTANCE)
    assert (found[:300] == np.arange(300)).all()


def test_no_images_are_no_groups():
    none = np.zeros(0, np.uint64)
    assert groups(np.zeros((0, 16), np.uint8), none, none).tolist() == []
