"""The inputs of the released step, apart from it: to make them needs no transformers."""

from typing import NamedTuple

from torch import Tensor

SLOTS = 4  # boxes of an image


class Inputs(NamedTuple):
    """What the released collator makes of B images."""

    image: Tensor
    """fp32 [B, 3, S, S], normalised."""
    text_short: Tensor
    """int64 [B, 77], filled up with EOS, as are all texts."""
    text_long: Tensor
    """int64 [B, 248]."""
    box_texts: Tensor
    """int64 [4 B, 77]; "" where an image has fewer boxes."""
    hard_texts: Tensor
    """int64 [11 H, 77]: of each hard region its positive and ten negatives."""
    boxes: Tensor
    """fp32 [B, 4, 4], xyxy as fractions; zeros where an image has fewer."""
    hard_boxes: Tensor
    """fp32 [B, 4, 4]: those boxes again that have negatives."""
    box_nums: list[int]
    hard_nums: list[int]
