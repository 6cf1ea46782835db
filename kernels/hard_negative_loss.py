"""Hard-negative loss on a GPU: one program a region, which holds its texts in registers, a tile of rows at a time.

The forward pass reads each text once; the backward pass reads each once and writes its gradient once. Nothing is added
up across programs, so results are the same bits every time. Statistics are fp32 (fp64 for fp64 inputs).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fgclip_fast.kernels.launch import on_own_device, rows

MAX_D = 8192
"""Widest row that fits the registers of one program."""


@triton.jit
def _inverse_length(squares):
    """1 / length from the sum of squares; 0 for a zero row, which makes its similarity and gradient 0."""
    return tl.where(squares > 1e-24, 1.0 / tl.sqrt(tl.maximum(squares, 1e-24)), 0.0)


@triton.jit
def _unit_row(row_ptr, D, statistics: tl.constexpr, BLOCK_D: tl.constexpr):
    column = tl.arange(0, BLOCK_D)
    row = tl.load(row_ptr + column, mask=column < D, other=0.0).to(statistics)
    inverse = _inverse_length(tl.sum(row * row))
    return row * inverse, inverse


@triton.jit
def _tile_mask(m, last, D, BLOCK_D: tl.constexpr):
    return (m < last)[:, None] & (tl.arange(0, BLOCK_D) < D)[None, :]


@triton.jit
def _text_tile(texts_ptr, text_stride, m, last, D, statistics: tl.constexpr, BLOCK_D: tl.constexpr):
    at = texts_ptr + m[:, None] * text_stride + tl.arange(0, BLOCK_D)[None, :]
    return tl.load(at, mask=_tile_mask(m, last, D, BLOCK_D), other=0.0).to(statistics)


@triton.jit
def _forward_kernel(
    regions_ptr, texts_ptr, offsets_ptr, scale_ptr,             # [R, D], [M, D], [R + 1], []
    losses_ptr, rank_ptr, similarity_ptr, text_inverse_ptr,     # [R], [R] int64, [M], [M]
    region_stride, text_stride, D, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    statistics: tl.constexpr = losses_ptr.dtype.element_ty
    r = tl.program_id(0).to(tl.int64)  # 4M rows of 512 already pass 2**31 elements
    region, _ = _unit_row(regions_ptr + r * region_stride, D, statistics, BLOCK_D)
    first, last = tl.load(offsets_ptr + r).to(tl.int64), tl.load(offsets_ptr + r + 1).to(tl.int64)
    scale = tl.load(scale_ptr)
    # Running maximum and sum: each text is read once, and exp cannot overflow at any scale.
    maximum, total = scale * 0 - float("inf"), scale * 0
    positive, rank = scale * 0, first * 0
    for start in range(first, last, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        texts = _text_tile(texts_ptr, text_stride, m, last, D, statistics, BLOCK_D)
        text_inverse = _inverse_length(tl.sum(texts * texts, 1))
        # Cosines of a tile of texts, kept for the backward pass.
        similarity = tl.sum(texts * region[None, :], 1) * text_inverse
        tl.store(text_inverse_ptr + m, text_inverse, mask=m < last)
        tl.store(similarity_ptr + m, similarity, mask=m < last)
        # The right text is the first; count the others that beat it.
        positive = tl.where(start == first, tl.sum(tl.where(m == first, similarity, 0.0)), positive)
        beats = (m > first) & (m < last) & ((similarity <= positive) == 0)  # not `>`: NaN must not pass for the best
        rank += tl.sum(beats.to(tl.int64))
        # Raise the running maximum, and add the tile's exponentials.
        logit = tl.where(m < last, scale * similarity, -float("inf"))
        raised = tl.maximum(maximum, tl.max(logit))
        total = total * tl.exp(maximum - raised) + tl.sum(tl.exp(logit - raised))
        maximum = raised
    # In this order: at scale 100 the log-sum-exp itself has lost what distinguishes a small loss from none.
    tl.store(losses_ptr + r, tl.where(last - first > 1, maximum - scale * positive + tl.log(total), 0.0))
    tl.store(rank_ptr + r, rank)


@triton.jit
def _backward_kernel(
    grad_loss_ptr, regions_ptr, texts_ptr, offsets_ptr, scale_ptr,      # [] of each region, [R, D], [M, D], [R + 1], []
    losses_ptr, similarity_ptr, text_inverse_ptr,                       # [R], [M], [M]
    grad_regions_ptr, grad_texts_ptr, grad_scale_ptr,                   # [R, D], [M, D], [R]
    region_stride, text_stride, D, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    statistics: tl.constexpr = losses_ptr.dtype.element_ty
    r = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK_D)
    region, region_inverse = _unit_row(regions_ptr + r * region_stride, D, statistics, BLOCK_D)
    first, last = tl.load(offsets_ptr + r).to(tl.int64), tl.load(offsets_ptr + r + 1).to(tl.int64)
    scale, loss, positive = tl.load(scale_ptr), tl.load(losses_ptr + r), tl.load(similarity_ptr + first)
    grad_loss = tl.where(last - first > 1, tl.load(grad_loss_ptr), 0.0)
    grad_unit = tl.zeros([BLOCK_D], statistics)  # gradient of the region's direction
    grad_scale = scale * 0
    for start in range(first, last, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        texts = _text_tile(texts_ptr, text_stride, m, last, D, statistics, BLOCK_D)
        similarity = tl.load(similarity_ptr + m, mask=m < last, other=0.0)
        text_inverse = tl.load(text_inverse_ptr + m, mask=m < last, other=0.0)
        # Gradient of the logits: the softmax, less 1 for the right text.
        probability = tl.exp(scale * (similarity - positive) - loss)
        grad_logit = tl.where(m < last, grad_loss * (probability - (m == first).to(statistics)), 0.0)
        # The tile's part of the gradients of the scale and of the region's direction.
        grad_scale += tl.sum(grad_logit * similarity)
        unit_texts = texts * text_inverse[:, None]
        grad_unit += tl.sum((scale * grad_logit)[:, None] * unit_texts, 0)
        # Gradient of the texts, without its radial component: their lengths do not matter.
        across = region[None, :] - similarity[:, None] * unit_texts
        grad_texts = (scale * grad_logit * text_inverse)[:, None] * across
        at = grad_texts_ptr + m[:, None] * D + column[None, :]
        tl.store(at, grad_texts, mask=_tile_mask(m, last, D, BLOCK_D))
    # Gradient of the region, again without its radial component.
    grad_region = region_inverse * (grad_unit - scale * grad_scale * region)
    tl.store(grad_regions_ptr + r * D + column, grad_region, mask=column < D)
    tl.store(grad_scale_ptr + r, grad_scale)


@on_own_device
def forward(
    regions: Tensor, texts: Tensor, offsets: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mean loss [], each region's loss [R] and rank of its positive [R], each text's similarity and 1 / length [M]."""
    regions, texts = rows(regions), rows(texts)
    R, M = len(regions), len(texts)
    losses, rank = scale.new_empty(R), scale.new_empty(R, dtype=torch.int64)
    similarity, text_inverse = scale.new_empty(M), scale.new_empty(M)
    if R > 0:  # an empty grid is a launch error
        outputs = losses, rank, similarity, text_inverse
        strides = regions.stride(0), texts.stride(0)
        _forward_kernel[(R,)](regions, texts, offsets, scale, *outputs, *strides, regions.shape[1], **_tile(regions))
    return losses.sum() / _choosing(offsets), losses, rank, similarity, text_inverse


@on_own_device
def backward(
    grad_loss: Tensor,
    regions: Tensor,
    texts: Tensor,
    offsets: Tensor,
    scale: Tensor,
    losses: Tensor,
    similarity: Tensor,
    text_inverse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of regions, texts and scale."""
    regions, texts = rows(regions), rows(texts)
    grad_regions, grad_texts = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (regions, texts))
    grad_scale = scale.new_empty(len(regions))
    if len(regions) > 0:
        inputs = grad_loss / _choosing(offsets), regions, texts, offsets, scale, losses, similarity, text_inverse
        outputs = grad_regions, grad_texts, grad_scale
        strides = regions.stride(0), texts.stride(0)
        _backward_kernel[(len(regions),)](*inputs, *outputs, *strides, regions.shape[1], **_tile(regions))
    return grad_regions, grad_texts, grad_scale.sum()


def _choosing(offsets: Tensor) -> Tensor:
    """The number of regions with a negative, at least 1; computed on the device, so that the host does not wait."""
    return (offsets.diff() > 1).sum().clamp(min=1)


def _tile(regions: Tensor) -> dict[str, int]:
    D = regions.shape[1]
    if D > MAX_D:
        raise ValueError(f"hard_negative_loss: on a GPU D must be at most {MAX_D}, got {D}")
    BLOCK_D = max(16, triton.next_power_of_2(D))
    BLOCK_M = max(1, min(16, 8192 // BLOCK_D))  # 16 rows: FineHARD's group of 11 is one load
    num_warps = 32 if BLOCK_D == 8192 else max(1, min(16, BLOCK_D // 128))  # 16 would spill the widest rows
    return {"BLOCK_M": BLOCK_M, "BLOCK_D": BLOCK_D, "num_warps": num_warps}
