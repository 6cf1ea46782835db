"""Split a joint product into its three parts; their gradients are joined, and those of the bias summed, in one pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fgclip_fast.ops import native


def split_joint(joint: Tensor, biases: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Cut the columns of the joint product of queries, keys and values into the three.

    The product already holds the bias. Its gradient comes from here all the same, since the pass that joins the
    gradients of the parts sums their rows as well; the layer that made the product must not give it a second one.

    Args:
        joint: Tensor[..., 3 * W], fp32, bf16 or fp16.
        biases: three Tensor[W], whose values ``joint`` holds; they are not read. Of any dtype: their gradients are
            summed in fp32.

    Returns:
        Three views, Tensor[..., W], differentiable once.

    Raises:
        ValueError: a width does not fit; the message names the argument.
    """
    if joint.dim() == 0 or joint.shape[-1] % 3:
        raise ValueError(f"split_joint: joint must be [..., 3 * W], got {list(joint.shape)}")
    W = joint.shape[-1] // 3
    if len(biases) != 3 or any(bias.shape != (W,) for bias in biases):
        raise ValueError(f"split_joint: biases must be three [{W}], got {[list(bias.shape) for bias in biases]}")
    return _SplitJoint.apply(joint, *biases)


class _SplitJoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, joint: Tensor, *biases: Tensor) -> tuple[Tensor, ...]:
        ctx.dtypes = [bias.dtype for bias in biases]
        return joint.chunk(3, dim=-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:]
        if not any(wanted):
            return torch.cat(grads, dim=-1), None, None, None
        joint, columns = _join(grads)
        sums = zip(columns.chunk(3), ctx.dtypes, wanted, strict=True)
        return joint, *(column.to(dtype) if wants else None for column, dtype, wants in sums)


@torch.library.custom_op("fgclip_fast::join", mutates_args=())
def _join(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Join three Tensor[..., W] along their columns, and sum the rows: Tensor[..., 3 * W], and Tensor[3 * W], fp32."""
    like = parts[0]
    if not _by_triton(like):
        joint = torch.cat(list(parts), dim=-1)
        return joint, joint.flatten(0, -2).sum(0, dtype=torch.promote_types(like.dtype, torch.float32))
    from fgclip_fast.kernels import split_joint  # here, since a CPU-only install has no Triton

    joint = like.new_empty(*like.shape[:-1], 3 * like.shape[-1])
    return joint, split_joint.join(joint, [part.contiguous() for part in parts])


@_join.register_fake
def _(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    like = parts[0]
    joint = like.new_empty(*like.shape[:-1], 3 * like.shape[-1])
    return joint, like.new_empty(joint.shape[-1], dtype=torch.promote_types(like.dtype, torch.float32))


def _by_triton(rows: Tensor) -> bool:
    serves = native.serves("split_joint", rows.device) and rows.dtype != torch.float64 and rows.numel() > 0
    return serves and native.SERVERS["split_joint"][rows.device.type] == "triton"
