"""Hard-negative loss: each region chooses its own text among near misses (arXiv 2505.05071)."""

import os
from typing import NamedTuple

import torch
from torch import Tensor

from fgclip_fast.ops import reference

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Scores(NamedTuple):
    """How regions rank their own texts."""

    similarity: Tensor
    """Tensor[M], fp32: cosine similarity of each text to its region."""
    rank: Tensor
    """Tensor[R], int64: how many of the region's negatives are more similar than its positive; 0 is best."""
    correct: Tensor
    """Tensor[R], bool: no negative is more similar; a tie with the positive counts as correct."""


def hard_negative_loss(regions: Tensor, texts: Tensor, offsets: Tensor, scale: Tensor) -> Tensor:
    """Mean cross-entropy of regions over their own texts; the first text of each is the right one.

    Region ``r`` chooses among ``texts[offsets[r]:offsets[r + 1]]`` by scaled cosine similarity; a region without a
    negative (a group of one text) is left out of the mean. Source: arXiv 2505.05071, hard fine-grained negative loss.

    Args:
        regions: Tensor[R, D], fp32, fp16 or bf16, of any length: normalised here, in fp32. A zero row has similarity 0
            and gradient 0. (fp64 is computed in fp64, to check gradients with.)
        texts: Tensor[M, D], dtype and device of ``regions``.
        offsets: Tensor[R + 1], int32 or int64, strictly rising from 0 to M.
        scale: Tensor[], fp32: ``logit_scale.exp()``.

    Returns:
        Tensor[], fp32, differentiable once in ``regions``, ``texts`` and ``scale``; 0 where no region has a negative.

    Raises:
        ValueError: a shape, dtype or device does not fit, or the offsets do not rise (on a GPU these are read only
            with FGCLIP_CHECK=1, since the host would wait); the message names the argument.
    """
    _check("hard_negative_loss", regions, texts, offsets)
    _check_scale(regions, scale)
    return reference.hard_negative_loss(regions, texts, offsets, scale)


def hard_negative_scores(regions: Tensor, texts: Tensor, offsets: Tensor) -> Scores:
    """Similarity of each text to its region and the rank of the first, right one; arguments as of the loss."""
    _check("hard_negative_scores", regions, texts, offsets)
    similarity, rank = reference.hard_negative_scores(regions.detach(), texts.detach(), offsets)
    return Scores(similarity, rank, rank == 0)


def _check(op: str, regions: Tensor, texts: Tensor, offsets: Tensor) -> None:
    if regions.dim() != 2 or regions.dtype not in DTYPES:
        raise ValueError(f"{op}: regions must be [R, D] of fp32, fp16 or bf16, got {_what(regions)}")
    if texts.dim() != 2 or (texts.shape[1], texts.dtype) != (regions.shape[1], regions.dtype):
        raise ValueError(f"{op}: texts must be [M, {regions.shape[1]}] of {regions.dtype}, got {_what(texts)}")
    if offsets.shape != (len(regions) + 1,) or offsets.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"{op}: offsets must be [R + 1] = [{len(regions) + 1}] of int32 or int64, got {_what(offsets)}"
        )
    for name, tensor in (("texts", texts), ("offsets", offsets)):
        if tensor.device != regions.device:
            raise ValueError(f"{op}: {name} must be on {regions.device} like regions, got {tensor.device}")
    if regions.device.type == "cpu" or os.environ.get("FGCLIP_CHECK") == "1":
        _check_rising(op, offsets, len(texts))


def _check_rising(op: str, offsets: Tensor, texts: int) -> None:
    ends = [int(offsets[0]), int(offsets[-1])]
    if ends != [0, texts]:
        raise ValueError(f"{op}: offsets must run from 0 to the number of texts, {texts}, got {ends[0]} to {ends[1]}")
    falls = (offsets.diff() <= 0).nonzero()
    if len(falls):
        at = int(falls[0])
        pair = offsets[at : at + 2].tolist()
        raise ValueError(f"{op}: offsets must rise, each region having a text, got {pair} at region {at}")


def _check_scale(regions: Tensor, scale: Tensor) -> None:
    statistics = torch.promote_types(regions.dtype, torch.float32)
    if scale.dim() != 0 or (scale.dtype, scale.device) != (statistics, regions.device):
        wanted, got = f"[] of {statistics} on {regions.device}", f"{_what(scale)} on {scale.device}"
        raise ValueError(f"hard_negative_loss: scale must be {wanted}, got {got}")


def _what(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} of {tensor.dtype}"
