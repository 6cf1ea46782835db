"""The embeddings of a batch, which are all that the objective sees."""

from typing import NamedTuple

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
