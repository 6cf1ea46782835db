"""What each op means, in eager PyTorch: the spec that every fast path is tested against, and the fallback."""

import torch
import torch.nn.functional as F
from torch import Tensor


def unit(rows: Tensor) -> Tensor:
    """Rows scaled to length 1; a zero row (shorter than 1e-12) stays zero and takes no gradient."""
    squares = rows.square().sum(-1, keepdim=True)
    is_zero = squares <= 1e-24
    return (rows * squares.masked_fill(is_zero, 1.0).rsqrt()).masked_fill(is_zero, 0.0)


def hard_negative_loss(regions: Tensor, texts: Tensor, offsets: Tensor, scale: Tensor) -> Tensor:
    """As the paper writes it: for each region, a softmax over its own texts, the first being right."""
    sizes = offsets.diff()
    owner, place = _owner_and_place(offsets, len(texts))
    similarity = _similarity(regions.to(scale.dtype), texts.to(scale.dtype), owner)
    logits = similarity.new_full((len(regions), int(sizes.max()) if len(sizes) else 1), -torch.inf)
    logits = logits.index_put((owner, place), scale * similarity)
    choosing = (sizes > 1).nonzero().squeeze(1)  # a region without a negative has nothing to choose
    positive = choosing.new_zeros(len(choosing))
    losses = F.cross_entropy(logits.index_select(0, choosing), positive, reduction="sum")  # of none: 0, not NaN
    return losses / max(len(choosing), 1)


def hard_negative_scores(regions: Tensor, texts: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine similarity of each text to its region, and how many of a region's negatives beat its positive."""
    statistics = torch.promote_types(regions.dtype, torch.float32)
    owner, place = _owner_and_place(offsets, len(texts))
    similarity = _similarity(regions.to(statistics), texts.to(statistics), owner)
    positive = similarity.index_select(0, offsets[:-1]).index_select(0, owner)
    beats = ~(similarity <= positive) & (place > 0)  # not `>`: NaN must not pass for the best
    return similarity, owner.new_zeros(len(regions)).index_add(0, owner, beats.long())


def _owner_and_place(offsets: Tensor, texts: int) -> tuple[Tensor, Tensor]:
    """Region of each text, and its number among that region's texts; both Tensor[M]."""
    owner = torch.arange(len(offsets) - 1, device=offsets.device).repeat_interleave(offsets.diff(), output_size=texts)
    return owner, torch.arange(texts, device=offsets.device) - offsets.index_select(0, owner)


def _similarity(regions: Tensor, texts: Tensor, owner: Tensor) -> Tensor:
    return (unit(regions).index_select(0, owner) * unit(texts)).sum(-1)
