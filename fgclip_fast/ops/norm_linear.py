"""Residual addition, LayerNorm and linear layers, of which only the sum is saved for the backward pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fgclip_fast.ops.add_layer_norm import add_norm, add_norm_backward, check
from fgclip_fast.ops.linear import add_product, product


def norm_linear(
    residual: Tensor,
    update: Tensor | None,
    update_bias: Tensor | None,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, ...]:
    """Add an update to the residual stream, normalise the sum and multiply: ``s = residual + update; LN(s) @ W.T``.

    The products run in the dtype of the weights. The normalised rows are not saved: the pass that differentiates
    LayerNorm makes them again, once for all layers.

    Args:
        residual: Tensor[..., W], fp32, bf16 or fp16.
        update: Tensor[..., W], to be added; a product without its bias. None: nothing is added.
        update_bias: Tensor[W], the bias of the product that made ``update``; None: no bias.
        norm_weight: Tensor[W], fp32, LayerNorm's.
        norm_bias: Tensor[W], fp32, LayerNorm's.
        weights: one Tensor[O, W] a layer, of one dtype.
        biases: one Tensor[O] a layer, dtype of the weights, or None; None: what reads the products adds their biases.
        eps: added to the variance.

    Returns:
        The sum, Tensor[..., W] in the dtype of ``residual`` (``residual`` itself without an update), and one product a
        layer, Tensor[..., O] in the dtype of the weights. All are differentiable once.

    Raises:
        ValueError: a shape or device does not fit; the message names the argument.
    """
    check(residual, update, update_bias, norm_weight, norm_bias)
    for weight in weights:
        if weight.dim() != 2 or weight.shape[1] != residual.shape[-1]:
            raise ValueError(f"norm_linear: weights must be [O, {residual.shape[-1]}], got {list(weight.shape)}")
    biases = [None] * len(weights) if biases is None else biases
    return _NormLinear.apply(residual, update, update_bias, norm_weight, norm_bias, eps, *weights, *biases)


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        residual: Tensor,
        update: Tensor | None,
        update_bias: Tensor | None,
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        *layers: Any,
    ) -> tuple[Tensor, ...]:
        weights, biases = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        total, normed, statistics = add_norm(
            residual, update, update_bias, norm_weight, norm_bias, eps, weights[0].dtype
        )
        ctx.save_for_backward(total, statistics, norm_weight, norm_bias, *weights)
        ctx.update_dtype = None if update is None else update.dtype
        ctx.set_materialize_grads(False)
        return total, *(product(normed, weight, bias) for weight, bias in zip(weights, biases, strict=True))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_total: Tensor | None, *grad_products: Tensor | None) -> tuple[Tensor | None, ...]:
        total, statistics, norm_weight, norm_bias, *weights = ctx.saved_tensors
        grads = [None if grad is None else grad.reshape(-1, grad.shape[-1]) for grad in grad_products]
        wanted = ctx.needs_input_grad[6:]
        wants_weight, wants_bias = wanted[: len(weights)], wanted[len(weights) :]
        grad_normed = _sum_of_products(grads, weights, total.shape)
        parameters = statistics, norm_weight, norm_bias
        grad_residual, grad_update, columns, normed = add_norm_backward(
            grad_total, grad_normed, total, *parameters, ctx.update_dtype, again=any(wants_weight)
        )
        rows = normed.view(-1, total.shape[-1])
        grad_weights = [
            product(grad.T, rows.T) if grad is not None and wants else None
            for grad, wants in zip(grads, wants_weight, strict=True)
        ]
        grad_biases = [
            grad.sum(0) if grad is not None and wants else None for grad, wants in zip(grads, wants_bias, strict=True)
        ]
        grad_update_bias = columns[2] if ctx.needs_input_grad[2] else None
        return grad_residual, grad_update, grad_update_bias, columns[0], columns[1], None, *grad_weights, *grad_biases


def _sum_of_products(grads: Sequence[Tensor | None], weights: Sequence[Tensor], shape: torch.Size) -> Tensor:
    """``sum of grad @ weight`` over the layers that have a gradient: that of the normalised rows, [..., W]."""
    total: Tensor | None = None
    for grad, weight in zip(grads, weights, strict=True):
        if grad is not None:
            total = product(grad, weight.T) if total is None else add_product(total, grad, weight.T)
    return weights[0].new_zeros(shape) if total is None else total.view(shape)
