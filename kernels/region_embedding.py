"""Region embedding on a GPU without nvcc: the arithmetic of csrc/region_embedding.h, in Triton.

A box weighs the token of cell (y, x) by the product of a weight of y and a weight of x. The first kernel computes these
H + W weights of each box. Nothing is added up across programs, so results are the same bits every time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fgclip_fast.kernels.launch import on_own_device

BLOCK_X = 16  # cells of a row that are taken together: 14 at ViT-B/16


@triton.jit
def _in_cells(fraction, size: tl.constexpr):
    # The product is exact in fp64, so it is rounded once: fused with the subtraction that follows it would not be, and
    # some boxes would get another number of samples.
    return (fraction.to(tl.float64) * size).to(tl.float32)


@triton.jit
def _sample_at(start, length, samples, i):
    return start + tl.div_rn((i + 0.5) * length, samples)


@triton.jit
def _store_axis_weights(from_ptr, to_ptr, weights_ptr, size: tl.constexpr, BLOCK: tl.constexpr):
    """Mean bilinear weights of ``size`` cells over ceil(length) samples of a box's axis; 0 where it has no length."""
    start = _in_cells(tl.load(from_ptr), size) - 0.5
    length = _in_cells(tl.load(to_ptr), size) - 0.5 - start
    valid = (length > 0.0) & (length < 1e30) & (start > -1e30)
    start, length = tl.where(valid, start, 0.0), tl.where(valid, length, 1.0)
    samples = tl.ceil(length)
    cell = tl.arange(0, BLOCK).to(tl.float32)
    # Only samples within one cell of a cell touch it. They lie over half a cell apart, so there are at most five; the
    # first of eight that are tried is two or three too early.
    i = tl.maximum(tl.floor(tl.div_rn((cell - 1.0 - start) * samples, length) - 1.5), 0.0)
    weight = tl.zeros([BLOCK], tl.float32)
    for _ in tl.static_range(8):
        at = _sample_at(start, length, samples, i)
        touches = (i < samples) & (at >= cell - 1.0) & (at <= cell + 1.0)
        inside = tl.minimum(tl.maximum(at, 0.0), size - 1.0)
        weight += tl.where(touches, 1.0 - tl.minimum(tl.abs(inside - cell), 1.0), 0.0)
        i += 1.0
    weight = tl.where(valid, tl.div_rn(weight, samples), 0.0)
    tl.store(weights_ptr + tl.arange(0, BLOCK), weight, mask=tl.arange(0, BLOCK) < size)


@triton.jit
def _weights_kernel(
    boxes_ptr, weights_ptr,  # [R, 4] xyxy, [R, H + W]: of y, then of x
    H: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)
    box_ptr, weights_ptr = boxes_ptr + 4 * r, weights_ptr + r * (H + W)
    _store_axis_weights(box_ptr + 1, box_ptr + 3, weights_ptr, H, BLOCK)
    _store_axis_weights(box_ptr, box_ptr + 2, weights_ptr + H, W, BLOCK)


@triton.jit
def _forward_kernel(
    tokens_ptr, weights_ptr, image_index_ptr, out_ptr,  # [B, H * W, C], [R, H + W], [R], [R, C]
    image_stride, token_stride, C,
    H: tl.constexpr, W: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    weights_ptr += r * (H + W)
    tokens_ptr += tl.load(image_index_ptr + r) * image_stride
    total = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
    for first in range(0, W, BLOCK_X):
        x = first + tl.arange(0, BLOCK_X)
        weight_x = tl.load(weights_ptr + H + x, mask=x < W, other=0.0)
        for y in range(H):
            weight = weight_x * tl.load(weights_ptr + y)
            # A token that weighs nothing is not read: it may not be finite.
            mask = (weight != 0.0)[:, None] & (channel < C)[None, :]
            at = (x + y * W).to(tl.int64)[:, None] * token_stride + channel[None, :]
            total += weight[:, None] * tl.load(tokens_ptr + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + r * C + channel, tl.sum(total, 0).to(out_ptr.dtype.element_ty), mask=channel < C)


@triton.jit
def _backward_kernel(
    grad_out_ptr, weights_ptr, order_ptr, begin_ptr,  # [R, C], [R, H + W], [R], [B + 1]
    grad_tokens_ptr,                                  # [B, H * W, C]
    C, H: tl.constexpr, W: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    blocks: tl.constexpr = (W + BLOCK_X - 1) // BLOCK_X
    row = tl.program_id(0).to(tl.int64) // blocks
    image, y = row // H, row % H
    x = tl.program_id(0) % blocks * BLOCK_X + tl.arange(0, BLOCK_X)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
    for n in range(tl.load(begin_ptr + image), tl.load(begin_ptr + image + 1)):
        r = tl.load(order_ptr + n)
        weight_y = tl.load(weights_ptr + r * (H + W) + y)
        weight = weight_y * tl.load(weights_ptr + r * (H + W) + H + x, mask=x < W, other=0.0)
        read = tl.where(weight_y != 0.0, C, 0)  # channels: none of a box that leaves this row alone
        grad = tl.load(grad_out_ptr + r * C + channel, mask=channel < read, other=0.0)
        total += tl.where((weight != 0.0)[:, None], weight[:, None] * grad.to(tl.float32)[None, :], 0.0)
    at = (row * W + x)[:, None] * C + channel[None, :]
    mask = (x < W)[:, None] & (channel < C)[None, :]
    tl.store(grad_tokens_ptr + at, total.to(grad_tokens_ptr.dtype.element_ty), mask=mask)


@on_own_device
def forward(tokens: Tensor, boxes: Tensor, image_index: Tensor, H: int, W: int) -> Tensor:
    """Compute the embeddings [R, C] of boxes [R, 4] over tokens [B, H * W, C]; see `ops.region_embedding`."""
    tokens = tokens if tokens.stride(2) == 1 else tokens.contiguous()
    R, C = len(boxes), tokens.shape[2]
    out = tokens.new_empty(R, C)
    if out.numel() > 0:  # a grid of no programs is a launch error
        weights, BLOCK_C = _weights(boxes, H, W), _channels(C)
        _forward_kernel[(R, triton.cdiv(C, BLOCK_C))](
            tokens, weights, image_index.contiguous(), out, tokens.stride(0), tokens.stride(1), C,
            H=H, W=W, BLOCK_X=BLOCK_X, BLOCK_C=BLOCK_C,
        )  # fmt: skip
    return out


@on_own_device
def backward(grad_out: Tensor, boxes: Tensor, image_index: Tensor, B: int, H: int, W: int) -> Tensor:
    """Compute the gradient of the tokens, [B, H * W, C], from that of the embeddings, [R, C]."""
    grad_out, C = grad_out.contiguous(), grad_out.shape[1]
    grad_tokens = grad_out.new_empty(B, H * W, C)
    if grad_tokens.numel() > 0:
        # The boxes by image, in the order in which they came; where those of each image begin.
        images, order = image_index.sort(stable=True)
        begin = torch.searchsorted(images, torch.arange(B + 1, device=images.device))
        weights, BLOCK_C = _weights(boxes, H, W), _channels(C)
        _backward_kernel[(B * H * triton.cdiv(W, BLOCK_X), triton.cdiv(C, BLOCK_C))](
            grad_out, weights, order, begin, grad_tokens, C, H=H, W=W, BLOCK_X=BLOCK_X, BLOCK_C=BLOCK_C
        )
    return grad_tokens


def _weights(boxes: Tensor, H: int, W: int) -> Tensor:
    """Weights of the H rows and the W columns of each box, [R, H + W]."""
    weights = boxes.new_empty(len(boxes), H + W)
    if len(boxes) > 0:
        BLOCK = triton.next_power_of_2(max(H, W))
        _weights_kernel[(len(boxes),)](boxes.contiguous(), weights, H=H, W=W, BLOCK=BLOCK, num_warps=1)
    return weights


def _channels(C: int) -> int:
    return min(128, max(16, triton.next_power_of_2(C)))
