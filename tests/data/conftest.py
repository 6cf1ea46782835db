"""Fixtures that make images, records and shards."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from fgclip_fast.data.shards import ShardWriter


def _encoded(width=64, height=48, mode="RGB", format="JPEG", seed=0, **options):
    """A smooth image with noise, as a file."""
    random = np.random.default_rng([seed, width, height])
    coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float64)
    noisy = np.clip(pixels + random.normal(0, 10, pixels.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).convert(mode).save(file, format, **({"quality": 90} if format == "JPEG" else {}), **options)
    return file.getvalue()


def _record(number=0, **fields):
    """A record with one region of three negatives, in FineHARD's format."""
    negatives = {"0": "a green mug", "1": "a blue mug", "2": "a grey mug"}
    region = {"bbox": [0.1, 0.2, 0.6, 0.9, 0.7], "short_expr": "a red mug", "long_expr": "a glossy red mug"}
    region |= {"flag_short_neg": 1, "short_expr_negs": negatives}
    record = {"short_caption": f"mug {number}", "caption": f"a red mug, number {number}", "bbox_info": [region]}
    return {**record, **fields}


def _shard(path, samples):
    """A shard of (image bytes, record) pairs; either may be None, and a record may be bytes."""
    with ShardWriter(path) as shard:
        for i, (image, record) in enumerate(samples):
            parts = {} if image is None else {"jpg": image}
            if record is not None:
                parts["json"] = record if isinstance(record, bytes) else json.dumps(record).encode()
            shard.write(f"{i:06d}", **parts)
    return path


@pytest.fixture(scope="session")
def encoded():
    return _encoded


@pytest.fixture(scope="session")
def record():
    return _record


@pytest.fixture(scope="session")
def write_shard():
    return _shard
