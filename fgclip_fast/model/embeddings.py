"""The embeddings of a batch, which are all that the objective sees."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor


class Embeddings(NamedTuple):
    """Joint embeddings of one batch, of any length: the losses normalise.

    Attributes:
        image, short, long: Tensor[B, D], images and their short and long captions.
        regions, region_texts: Tensor[R, D], regions and the text of each.
        hard_texts: Tensor[Mh, D], groups of one right text and its negatives.
        hard_region: Tensor[H], int64, the region of each group.
        hard_offsets: Tensor[H + 1], int64, where each group's texts begin, with the end appended.
        short_ids, long_ids, region_ids: Tensor[B], Tensor[B], Tensor[R], int64, equal where the texts are equal.
        scale, region_scale, hard_scale: Tensor[], fp32, exponentials of the three logit scales.
    """

    image: Tensor
    short: Tensor
    long: Tensor
    regions: Tensor
    region_texts: Tensor
    hard_texts: Tensor
    hard_region: Tensor
    hard_offsets: Tensor
    short_ids: Tensor
    long_ids: Tensor
    region_ids: Tensor
    scale: Tensor
    region_scale: Tensor
    hard_scale: Tensor


def join(parts: Sequence[Embeddings]) -> Embeddings:
    """Join the embeddings of batches that one model made into those of one batch.

    Raises:
        ValueError: no parts.
    """
    if not parts:
        raise ValueError("join: parts must hold at least one batch's embeddings, got none")
    first = parts[0]
    rows = ("image", "short", "long", "regions", "region_texts", "hard_texts", "short_ids", "long_ids", "region_ids")
    regions = accumulate((len(part.regions) for part in parts), initial=0)
    texts = accumulate((len(part.hard_texts) for part in parts), initial=0)
    hard_region = torch.cat([part.hard_region + shift for part, shift in zip(parts, regions, strict=False)])
    offsets = [part.hard_offsets[1:] + shift for part, shift in zip(parts, texts, strict=False)]
    return first._replace(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in rows},
        hard_region=hard_region,
        hard_offsets=torch.cat([first.hard_offsets[:1], *offsets]),
    )
