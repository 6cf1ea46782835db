"""Stage-2 batches of random texts: only their shapes cost anything."""

import random

import torch

from fgclip_fast.inputs.batch import Batch
from fgclip_fast.inputs.texts import Texts
from fgclip_fast.inputs.tokenizer import BOS
from fgclip_fast.ops.tree import EOS

REGIONS = 4
NEGATIVES = 10
HARD_REGIONS = {"hard": 4.0, "finehard": 0.8}
"""Regions of an image that have negatives, on average: all four, or as many as in FineHARD."""
WORDS = range(300, 20000)

Row = list[int]


def stage2_batch(images: int, image_size: int, workload: str = "hard", seed: int = 0) -> Batch:
    """Images with four regions each, whose pixels and boxes have no meaning, and their texts as one prefix tree.

    A short caption has 20 tokens, a long one 110 to 150, a region's text 11 to 15. A negative differs from its
    positive, of 10 to 16 tokens, in one word, as FG-OVD's hard negatives do.

    Args:
        images: Number of images.
        image_size: Side of an image, pixels.
        workload: A key of ``HARD_REGIONS``.
        seed: Of the texts.
    """
    draw = random.Random(seed)
    an_image = HARD_REGIONS[workload]
    groups = [int((i + 1) * an_image) - int(i * an_image) for i in range(images)]
    rows = [_text(draw, 20) for _ in range(images)]
    rows += [_text(draw, draw.randint(11, 15)) for _ in range(REGIONS * images)]
    rows += [text for _ in range(sum(groups)) for text in _group(draw)]
    longs = [_text(draw, draw.randint(110, 150)) for _ in range(images)]
    token = torch.tensor([token for row in [*rows, *longs] for token in row], dtype=torch.int32)
    offsets = torch.tensor([0, *map(len, [*rows, *longs])]).cumsum(0)
    texts = Texts(token, offsets, len(rows)).packed()
    return Batch(
        image=torch.zeros(images, 3, image_size, image_size, dtype=torch.uint8),
        texts=texts,
        boxes=torch.tensor([0.2, 0.2, 0.7, 0.7]).expand(REGIONS * images, 4).contiguous(),
        image_index=torch.arange(images).repeat_interleave(REGIONS),
        hard_region=torch.tensor([REGIONS * i + n for i, count in enumerate(groups) for n in range(count)]),
        hard_offsets=torch.arange(sum(groups) + 1) * (1 + NEGATIVES),
        text_ids=torch.arange(len(offsets) - 1),
    )


def _group(draw: random.Random) -> list[Row]:
    positive = _text(draw, draw.randint(10, 16))
    negatives = [list(positive) for _ in range(NEGATIVES)]
    for negative in negatives:
        negative[draw.randrange(1, len(positive) - 1)] = draw.choice(WORDS)
    return [positive, *negatives]


def _text(draw: random.Random, length: int) -> Row:
    """Random words, ``length`` tokens with BOS and EOS."""
    return [BOS, *draw.choices(WORDS, k=length - 2), EOS]
