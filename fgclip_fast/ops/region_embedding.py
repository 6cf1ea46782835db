"""Embeddings of boxes, pooled from a vision tower's patch tokens without copying these."""

from typing import Any

import torch
from torch import Tensor

from fgclip_fast.ops import native, reference

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def region_embedding(tokens: Tensor, boxes: Tensor, image_index: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average bilinear samples of the tokens under each box: RoIAlign with a 1 × 1 output.

    The same as ``torchvision.ops.roi_align(map, boxes * grid, (1, 1), 1.0, -1, aligned=True)`` for every box, also one
    that leaves the image; a box without area, or inverted, gives the zero vector. It is linear in the tokens, so a
    projection without bias may follow it rather than precede it. No gradient goes to the boxes.

    Args:
        tokens: Tensor[B, H * W, C], fp32, bf16 or fp16, row by row; sums are fp32. A view that leaves out a class
            token, ``hidden[:, 1:]``, is read where it is; fp64 is served by the reference.
        boxes: Tensor[R, 4], fp32, xyxy as fractions of the image.
        image_index: Tensor[R], int64, the image of each box, in any order.
        grid: ``(H, W)``, in tokens.

    Returns:
        Tensor[R, C], dtype of ``tokens``, differentiable in ``tokens``, once.

    Raises:
        ValueError: a shape, dtype or device does not fit, or (on a CPU, or with ``FGCLIP_CHECK=1``) a box is not finite
            or an image index not in [0, B); the message names the argument.
    """
    _check(tokens, boxes, image_index, grid)
    if tokens.dtype == torch.float64 or not native.serves("region_embedding", tokens.device):
        _check_values(boxes, image_index, tokens.shape[0])
        return reference.region_embedding(tokens, boxes.detach(), image_index, grid)
    return _forward(tokens, boxes, image_index, *grid)


def _check(tokens: Tensor, boxes: Tensor, image_index: Tensor, grid: tuple[int, int]) -> None:
    if len(grid) != 2 or min(grid) < 1:
        raise ValueError(f"region_embedding: grid must be (H, W), both at least 1, got {tuple(grid)}")
    H, W = grid
    if tokens.ndim != 3 or tokens.shape[1] != H * W:
        raise ValueError(
            f"region_embedding: tokens must be [B, H * W, C] = [B, {H * W}, C], got {list(tokens.shape)}; "
            "leave out a class token: tokens[:, 1:]"
        )
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"region_embedding: boxes must be [R, 4] xyxy, got {list(boxes.shape)}")
    if image_index.shape != boxes.shape[:1]:
        raise ValueError(f"region_embedding: image_index must be [R] = [{len(boxes)}], got {list(image_index.shape)}")
    if tokens.dtype not in DTYPES:
        raise ValueError(f"region_embedding: tokens must be fp32, bf16, fp16 or fp64, got {tokens.dtype}")
    if boxes.dtype != torch.float32:  # rounding a box to bf16 moves it by up to 0.1 cell
        raise ValueError(f"region_embedding: boxes must be fp32, got {boxes.dtype}")
    if image_index.dtype != torch.int64:
        raise ValueError(f"region_embedding: image_index must be int64, got {image_index.dtype}")
    for name, tensor in (("boxes", boxes), ("image_index", image_index)):
        if tensor.device != tokens.device:
            raise ValueError(
                f"region_embedding: {name} must be on the device of tokens, {tokens.device}, got {tensor.device}"
            )


@torch.library.custom_op("fgclip_fast::region_embedding", mutates_args=(), device_types=("cpu", "cuda"))
def _forward(tokens: Tensor, boxes: Tensor, image_index: Tensor, H: int, W: int) -> Tensor:
    B, _, C = tokens.shape
    _check_values(boxes, image_index, B)
    if native.server("region_embedding", tokens.device.type) == "triton":
        return _triton().forward(tokens, boxes, image_index, H, W)
    if tokens.stride(2) != 1:
        tokens = tokens.contiguous()
    out = tokens.new_empty(len(boxes), C)
    if out.numel() == 0:
        return out
    from fgclip_fast import _native  # here, since the extension may not be built

    boxes, image_index = boxes.contiguous(), image_index.contiguous()  # held until the call returns
    strides = {"image_stride": tokens.stride(0), "token_stride": tokens.stride(1)}
    shape = _native.RegionShape(B=B, R=len(boxes), H=H, W=W, C=C, **strides)
    arguments = native.address(boxes), native.address(image_index), native.address(out), native.dtype(out), shape
    if tokens.device.type == "cpu":
        _native.region_embedding_forward_cpu(native.row_address(tokens), *arguments)
    else:
        _native.region_embedding_forward_cuda(native.row_address(tokens), *arguments, *native.stream(tokens.device))
    return out


@_forward.register_fake
def _(tokens: Tensor, boxes: Tensor, image_index: Tensor, H: int, W: int) -> Tensor:
    return tokens.new_empty(boxes.shape[0], tokens.shape[2])  # len would fix R in a compiled graph


@torch.library.custom_op("fgclip_fast::region_embedding_backward", mutates_args=(), device_types=("cpu", "cuda"))
def _backward(grad_out: Tensor, boxes: Tensor, image_index: Tensor, B: int, H: int, W: int) -> Tensor:
    if native.server("region_embedding", grad_out.device.type) == "triton":
        return _triton().backward(grad_out, boxes, image_index, B, H, W)
    grad_out, C = grad_out.contiguous(), grad_out.shape[1]
    grad_tokens = grad_out.new_empty(B, H * W, C)
    if grad_tokens.numel() == 0:
        return grad_tokens
    from fgclip_fast import _native

    boxes, image_index = boxes.contiguous(), image_index.contiguous()
    R = len(boxes)
    shape = _native.RegionShape(B=B, R=R, H=H, W=W, C=C, image_stride=H * W * C, token_stride=C)
    box_addresses = native.address(boxes), native.address(image_index)
    arguments = native.address(grad_out), *box_addresses, native.address(grad_tokens), native.dtype(grad_out), shape
    if grad_out.device.type == "cpu":
        _native.region_embedding_backward_cpu(*arguments)
    else:
        # Scratch: the first box of each image, the boxes sorted by image, and their weights.
        begin, order = image_index.new_empty(B + 1), image_index.new_empty(R)
        weights = boxes.new_empty(R, H + W)
        scratch = native.address(begin), native.address(order), native.address(weights)
        _native.region_embedding_backward_cuda(*arguments, *scratch, *native.stream(grad_out.device))
    return grad_tokens


@_backward.register_fake
def _(grad_out: Tensor, boxes: Tensor, image_index: Tensor, B: int, H: int, W: int) -> Tensor:
    return grad_out.new_empty(B, H * W, grad_out.shape[1])


def _triton() -> Any:
    from fgclip_fast.kernels import region_embedding  # here, since a CPU-only install has no Triton

    return region_embedding


def _check_values(boxes: Tensor, image_index: Tensor, B: int) -> None:
    if torch.compiler.is_compiling() or not native.may_read(boxes):  # a traced graph has no values
        return
    outside = image_index[(image_index < 0) | (image_index >= B)]
    if len(outside):
        raise ValueError(f"region_embedding: image_index must be in [0, B) = [0, {B}), got {int(outside[0])}")
    if not boxes.isfinite().all():
        raise ValueError(f"region_embedding: boxes must be finite, got {boxes[~boxes.isfinite()][0]}")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tokens, boxes, image_index, H, W = inputs
    ctx.save_for_backward(boxes, image_index)
    ctx.sizes = (tokens.shape[0], H, W)


def _differentiate(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None, None, None, None]:
    return _backward(grad_out, *ctx.saved_tensors, *ctx.sizes), None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)
_forward.register_vmap(native.refuse_vmap)
