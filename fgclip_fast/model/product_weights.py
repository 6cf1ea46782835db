"""Weights of a block's products in the dtype that the products run in, converted by one launch a block."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class ProductWeights(NamedTuple):
    """Weights of one block's products, all of one dtype; biases that a product adds itself."""

    qkv: Sequence[Tensor]
    """Tensor[3 * width, width] for queries, keys and values together, or three Tensor[width, width]."""
    qkv_bias: Sequence[Tensor]
    """Their biases."""
    out: Tensor
    """Tensor[width, width]"""
    fc1: Tensor
    """Tensor[hidden, width]"""
    fc2: Tensor
    """Tensor[width, hidden]"""


def product_dtype(stream: Tensor, weight: Tensor) -> torch.dtype:
    """The dtype of products: the autocast's on the device of ``stream`` where it is on, else that of ``weight``."""
    kind = stream.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def product_weights(
    qkv: Sequence[Tensor], qkv_bias: Sequence[Tensor], others: Sequence[Tensor], dtype: torch.dtype
) -> ProductWeights:
    """The weights of a block's products in ``dtype``.

    Where they must be converted, those of queries, keys and values go into one tensor, which costs nothing more and
    makes one product of three. Where they need not be, they stay as they are.

    Args:
        qkv: weights of queries, keys and values, Tensor[width, width] each.
        qkv_bias: their biases, Tensor[width] each.
        others: weights of the output projection and of the MLP's two layers.
        dtype: wanted.
    """
    if dtype == qkv[0].dtype:
        return ProductWeights(qkv, qkv_bias, *others)
    weight, bias, *others = _Converted.apply(dtype, (3, 3, 1, 1, 1), *qkv, *qkv_bias, *others)
    return ProductWeights([weight], [bias], *others)


class _Converted(torch.autograd.Function):
    """Copies of parameters in another dtype, in groups that stand one below the other in one tensor."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, groups: Sequence[int], *parameters: Tensor) -> tuple[Tensor, ...]:
        members = _grouped(parameters, groups)
        joint = [group[0].new_empty(sum(map(len, group)), *group[0].shape[1:], dtype=dtype) for group in members]
        parts = [part for whole, group in zip(joint, members, strict=True) for part in whole.split([*map(len, group)])]
        torch._foreach_copy_(parts, list(parameters))
        ctx.groups, ctx.dtypes, ctx.lengths = groups, [p.dtype for p in parameters], [len(p) for p in parameters]
        ctx.set_materialize_grads(False)
        return tuple(joint)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        parts: list[Tensor | None] = []
        for grad, lengths in zip(grads, _grouped(ctx.lengths, ctx.groups), strict=True):
            parts += [None] * len(lengths) if grad is None else grad.split(lengths)
        wanted = [
            (part, part.new_empty(part.shape, dtype=dtype))
            for part, dtype, needed in zip(parts, ctx.dtypes, ctx.needs_input_grad[2:], strict=True)
            if part is not None and needed
        ]
        if wanted:
            torch._foreach_copy_([copy for _, copy in wanted], [part for part, _ in wanted])
        copies = {id(part): copy for part, copy in wanted}
        return None, None, *(copies.get(id(part)) for part in parts)


def _grouped(values: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [list(values[start : start + size]) for start, size in zip(starts, sizes, strict=True)]
