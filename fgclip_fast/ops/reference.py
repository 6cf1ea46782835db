"""What each op means, in eager PyTorch: the spec that every fast path is tested against, and the fallback."""

import torch
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
