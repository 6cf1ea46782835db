"""What each op means, in eager PyTorch: the spec that every fast path is tested against, and the fallback."""

import torch
import torch.nn.functional as F
from torch import Tensor


def region_embedding(tokens: Tensor, boxes: Tensor, image_index: Tensor, grid: tuple[int, int]) -> Tensor:
    """RoIAlign with a 1 × 1 output, a mean over samples of x and of y: a cell weighs its row's times its column's."""
    H, W = grid
    weight_x = _axis_weights(boxes[:, 0], boxes[:, 2], W)
    weight_y = _axis_weights(boxes[:, 1], boxes[:, 3], H)
    total = torch.promote_types(tokens.dtype, torch.float32)
    weight = (weight_y[:, :, None] * weight_x[:, None, :]).reshape(len(boxes), 1, H * W).to(total)
    return (weight @ tokens.index_select(0, image_index).to(total)).squeeze(1).to(tokens.dtype)


def _axis_weights(start: Tensor, end: Tensor, size: int) -> Tensor:
    """Mean bilinear weight of each of ``size`` cells over ``ceil(length)`` samples of a box's axis: [R, size], fp32."""
    start, end = start * size - 0.5, end * size - 0.5
    length = torch.where((end - start).isfinite(), end - start, 0)
    samples = length.ceil()  # they lie over half a cell apart, so that few of them touch the axis
    skipped = ((-1 - start) * samples / length).nan_to_num().floor().sub(2).clamp(min=0)
    i = skipped[:, None] + torch.arange(2 * size + 8, device=start.device)
    at = start[:, None] + (i + 0.5) * length[:, None] / samples[:, None]
    counts = (i < samples[:, None]) & (at >= -1) & (at <= size)  # the others are zero, and part of the mean
    cell = torch.arange(size, device=start.device)
    bilinear = (1 - (at.clamp(0, size - 1)[:, :, None] - cell).abs()).clamp(min=0)
    return torch.where(counts[:, :, None], bilinear, 0).sum(1) / samples.clamp(min=1)[:, None]


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
