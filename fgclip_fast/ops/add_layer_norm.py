"""Residual addition and LayerNorm in one pass over the residual stream, forward and backward."""

import math
from typing import Any

import torch
from torch import Tensor

from fgclip_fast.ops import native

MAX_WIDTH = 8192
"""Widest row that one program of the Triton kernel holds in registers."""


def add_layer_norm(
    residual: Tensor,
    update: Tensor | None,
    update_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Add an update to the residual stream and normalise the sum: ``s = residual + update + update_bias; LN(s)``.

    The statistics are fp32 whatever the dtypes. The backward pass reads the sum once, and writes the gradient of the
    stream once. Of the normalised rows nothing is saved. Source of LayerNorm: arXiv 1607.06450.

    Args:
        residual: Tensor[..., W], fp32, bf16 or fp16.
        update: Tensor[..., W], to be added; a product without its bias. None: nothing is added.
        update_bias: Tensor[W], fp32, the bias of the product that made ``update``; None: no bias.
        weight: Tensor[W], fp32, LayerNorm's.
        bias: Tensor[W], fp32, LayerNorm's.
        eps: added to the variance.
        dtype: of the normalised rows; None: that of ``residual``.

    Returns:
        The sum, Tensor[..., W] in the dtype of ``residual`` (``residual`` itself without an update), and its
        normalised rows, Tensor[..., W] in ``dtype``. Both are differentiable once.

    Raises:
        ValueError: a shape or device does not fit; the message names the argument.
    """
    check(residual, update, update_bias, weight, bias)
    return _AddLayerNorm.apply(residual, update, update_bias, weight, bias, eps, dtype or residual.dtype)


class _AddLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        residual: Tensor,
        update: Tensor | None,
        update_bias: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        total, normed, statistics = add_norm(residual, update, update_bias, weight, bias, eps, dtype)
        ctx.save_for_backward(total, statistics, weight, bias)
        ctx.update_dtype = None if update is None else update.dtype
        ctx.has_update_bias = update_bias is not None
        ctx.set_materialize_grads(False)
        return total, normed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_total: Tensor | None, grad_normed: Tensor | None) -> tuple[Tensor | None, ...]:
        total, statistics, weight, bias = ctx.saved_tensors
        if grad_normed is None:
            grad_normed = torch.zeros_like(total)
        grads = add_norm_backward(grad_total, grad_normed, total, statistics, weight, bias, ctx.update_dtype)
        grad_residual, grad_update, (grad_weight, grad_bias, grad_update_bias), _ = grads
        return (
            grad_residual,
            grad_update,
            grad_update_bias if ctx.has_update_bias else None,
            grad_weight,
            grad_bias,
            None,
            None,
        )


# The two passes, for other ops to build on (norm_linear). Rows stand flat in the ops below them.


def add_norm(
    residual: Tensor,
    update: Tensor | None,
    update_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum and its normalised rows, Tensor[..., W], and the rows' mean and 1 / deviation, Tensor[2, rows], fp32."""
    if update is None:
        normed, statistics = _norm(residual, weight, bias, eps, dtype)
        return residual, normed, statistics
    return _forward(residual, update, update_bias, weight, bias, eps, dtype)


def add_norm_backward(
    grad_total: Tensor | None,
    grad_normed: Tensor,
    total: Tensor,
    statistics: Tensor,
    weight: Tensor,
    bias: Tensor,
    update_dtype: torch.dtype | None,
    again: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Differentiate :func:`add_norm`, and make its normalised rows again if ``again``.

    Returns:
        The gradients of the stream and of the update, Tensor[..., W], one tensor where their dtypes are equal;
        Tensor[3, W], fp32: the gradients of LayerNorm's weight and bias and of the update's bias; and the normalised
        rows, Tensor[..., W] in the dtype of ``grad_normed``, or an empty tensor.
    """
    other = None if update_dtype in (None, total.dtype) else update_dtype
    inputs = grad_total, grad_normed, total, statistics, weight, bias
    grad_residual, grad_other, columns, normed = _backward(*inputs, other, again)
    grad_update = None if update_dtype is None else grad_residual if other is None else grad_other
    return grad_residual, grad_update, columns, normed


@torch.library.custom_op("fgclip_fast::add_layer_norm", mutates_args=())
def _forward(
    residual: Tensor,
    update: Tensor,
    update_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    server = _server(residual, update.dtype, dtype)
    if server == "torch":
        total = residual + (update if update_bias is None else update + update_bias)
        total = total.to(residual.dtype)
        return total, *_norm_by_torch(total, weight, bias, eps, dtype)
    total, normed, statistics = _empty(residual), _empty(residual, dtype), _empty_statistics(residual)
    _engine(server).forward(residual, update, update_bias, weight, bias, eps, total, normed, statistics)
    return total, normed, statistics


@_forward.register_fake
def _(
    residual: Tensor,
    update: Tensor,
    update_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(residual), _empty(residual, dtype), _empty_statistics(residual)


@torch.library.custom_op("fgclip_fast::layer_norm", mutates_args=())
def _norm(residual: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    server = _server(residual, dtype)
    if server == "torch":
        return _norm_by_torch(residual, weight, bias, eps, dtype)
    normed, statistics = _empty(residual, dtype), _empty_statistics(residual)
    _engine(server).forward(residual, None, None, weight, bias, eps, None, normed, statistics)
    return normed, statistics


@_norm.register_fake
def _(residual: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return _empty(residual, dtype), _empty_statistics(residual)


@torch.library.custom_op("fgclip_fast::add_layer_norm_backward", mutates_args=())
def _backward(
    grad_total: Tensor | None,
    grad_normed: Tensor,
    total: Tensor,
    statistics: Tensor,
    weight: Tensor,
    bias: Tensor,
    other_dtype: torch.dtype | None,
    again: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = grad_total, grad_normed, total, statistics, weight, bias
    server = _server(total, grad_normed.dtype, other_dtype)
    if server == "torch":
        return _backward_by_torch(*inputs, other_dtype, again)
    grad_residual = _empty(total)
    grad_other = _empty(total, other_dtype) if other_dtype else None
    normed = _empty(total, grad_normed.dtype) if again else None
    outputs = grad_residual, grad_other, normed
    columns = _engine(server).backward(grad_normed, grad_total, total, statistics, weight, bias, *outputs)
    others = (total.new_empty(0) if x is None else x for x in (grad_other, normed))
    return grad_residual, next(others), columns, next(others)


@_backward.register_fake
def _(
    grad_total: Tensor | None,
    grad_normed: Tensor,
    total: Tensor,
    statistics: Tensor,
    weight: Tensor,
    bias: Tensor,
    other_dtype: torch.dtype | None,
    again: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    other = _empty(total, other_dtype) if other_dtype else total.new_empty(0)
    normed = _empty(total, grad_normed.dtype) if again else total.new_empty(0)
    return _empty(total), other, statistics.new_empty(3, total.shape[-1]), normed


def _norm_by_torch(rows: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(rows.dtype, torch.float32)
    parameters = weight.to(wide), bias.to(wide)
    normed, mean, inverse = torch.native_layer_norm(rows.to(wide), rows.shape[-1:], *parameters, eps)
    return normed.to(dtype), torch.stack([mean.flatten(), inverse.flatten()])


def _backward_by_torch(
    grad_total: Tensor | None,
    grad_normed: Tensor,
    total: Tensor,
    statistics: Tensor,
    weight: Tensor,
    bias: Tensor,
    other_dtype: torch.dtype | None,
    again: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, grad = (x.reshape(-1, total.shape[-1]).to(statistics.dtype) for x in (total, grad_normed))
    mean, inverse = statistics[:, :, None]
    unit, weighted = (rows - mean) * inverse, grad * weight
    along, across = (weighted * unit).mean(1, keepdim=True), weighted.mean(1, keepdim=True)
    grad_rows = inverse * (weighted - across - unit * along)
    if grad_total is not None:
        grad_rows = grad_rows + grad_total.reshape(grad_rows.shape)
    columns = torch.stack([(grad * unit).sum(0), grad.sum(0), grad_rows.sum(0)])
    grad_other = grad_rows.to(other_dtype).view(total.shape) if other_dtype else total.new_empty(0)
    normed = (unit * weight + bias).to(grad_normed.dtype).view(total.shape) if again else total.new_empty(0)
    return grad_rows.to(total.dtype).view(total.shape), grad_other, columns, normed


def _server(stream: Tensor, *dtypes: torch.dtype | None) -> str:
    """The fastest that takes these dtypes and this width on this device: "triton", "native" or "torch"."""
    if not native.serves("add_layer_norm", stream.device) or torch.float64 in (stream.dtype, *dtypes):
        return "torch"
    if stream.numel() == 0 or stream.shape[-1] > MAX_WIDTH:
        return "torch"
    return native.SERVERS["add_layer_norm"][stream.device.type]


def _engine(server: str) -> Any:
    """The module whose ``forward`` and ``backward`` fill the outputs: in Triton, or in C++."""
    if server == "native":
        from fgclip_fast.ops import add_layer_norm_native

        return add_layer_norm_native
    from fgclip_fast.kernels import add_layer_norm  # here, since a CPU-only install has no Triton

    return add_layer_norm


def _empty(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty_like(like, dtype=dtype, memory_format=torch.contiguous_format)


def _empty_statistics(rows: Tensor) -> Tensor:
    wide = torch.promote_types(rows.dtype, torch.float32)
    return rows.new_empty(2, math.prod(rows.shape[:-1]), dtype=wide)


def check(residual: Tensor, update: Tensor | None, update_bias: Tensor | None, weight: Tensor, bias: Tensor) -> None:
    """Raise ValueError, naming the argument, if a shape or device does not fit."""
    if residual.dim() == 0 or not residual.is_floating_point():
        got = f"{list(residual.shape)} {residual.dtype}"
        raise ValueError(f"add_layer_norm: residual must be [..., W] of floats, got {got}")
    if update is not None and (update.shape, update.device) != (residual.shape, residual.device):
        wanted, got = f"{list(residual.shape)} on {residual.device}", f"{list(update.shape)} on {update.device}"
        raise ValueError(f"add_layer_norm: update must be like residual, {wanted}, got {got}")
    if update is None and update_bias is not None:
        raise ValueError("add_layer_norm: update_bias belongs to an update, got it without one")
    for name, row in (("update_bias", update_bias), ("weight", weight), ("bias", bias)):
        if row is not None and (row.shape, row.device) != (residual.shape[-1:], residual.device):
            wanted, got = f"[{residual.shape[-1]}] on {residual.device}", f"{list(row.shape)} on {row.device}"
            raise ValueError(f"add_layer_norm: {name} must be {wanted}, got {got}")
