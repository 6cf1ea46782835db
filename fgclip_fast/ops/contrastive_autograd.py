"""Attach gradients that were computed in the forward pass to the contrastive loss, for its backward pass to return."""

from typing import Any

import torch
from torch import Tensor

# The contrastive loss computes its gradients in the forward pass, while the logits are at hand: for a loss of 1, and
# only those that are wanted. `attach` brings them into autograd's graph. Forward, it returns the loss as it is;
# backward, it returns the gradients times the upstream gradient, in the dtypes of the inputs.
#
# It is a custom op rather than a torch.autograd.Function, so that torch.compile sees one node without a graph break.
# Its backward pass has two ways. An upstream gradient of exactly 1 on a CPU, the usual case, needs no product, and so
# no copy of both gradients. Any other goes through `_backward`, a custom op as well, since a traced value or one on a
# GPU cannot be read. A second derivative would differentiate `_backward`, where the gradients are constants, so it
# raises instead.


@torch.library.custom_op("fgclip_fast::contrastive_loss_attach", mutates_args=())
def attach(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    loss: Tensor,
    grad_image: Tensor,
    grad_text: Tensor,
    grad_scale: Tensor,
) -> Tensor:
    """Return ``loss``; its backward pass returns the given gradients of a loss of 1 by ``image, text, scale``."""
    return loss.clone()


@attach.register_fake
def _(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    loss: Tensor,
    grad_image: Tensor,
    grad_text: Tensor,
    grad_scale: Tensor,
) -> Tensor:
    return torch.empty_like(loss)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    image, text, scale, _, *gradients = inputs
    ctx.save_for_backward(*gradients, image, text, scale)


def _differentiate(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # read once: activation checkpointing refuses to unpack a second time
    made, inputs = saved[:3], saved[3:]
    is_known = type(grad_loss) is Tensor and grad_loss.is_cpu and not torch.is_grad_enabled()
    if is_known and grad_loss.item() == 1:
        gradients = tuple(grad.to(x.dtype) for grad, x in zip(made, inputs, strict=True))
    else:
        gradients = _backward(grad_loss, *made, *inputs)
    wanted = (grad if needed else None for grad, needed in zip(gradients, ctx.needs_input_grad[:3], strict=True))
    return *wanted, None, None, None, None


attach.register_autograd(_differentiate, setup_context=_setup_context)


@torch.library.custom_op("fgclip_fast::contrastive_loss_backward", mutates_args=())
def _backward(
    grad_loss: Tensor,
    grad_image: Tensor,
    grad_text: Tensor,
    grad_scale: Tensor,
    image: Tensor,
    text: Tensor,
    scale: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Multiply the gradients by ``grad_loss``. The inputs are passed only for their dtypes."""
    pairs = ((grad_image, image), (grad_text, text), (grad_scale, scale))
    image, text, scale = ((grad * grad_loss).to(x.dtype) for grad, x in pairs)
    return image, text, scale


@_backward.register_fake
def _(
    grad_loss: Tensor,
    grad_image: Tensor,
    grad_text: Tensor,
    grad_scale: Tensor,
    image: Tensor,
    text: Tensor,
    scale: Tensor,
) -> tuple[Tensor, ...]:
    pairs = ((grad_image, image), (grad_text, text), (grad_scale, scale))
    return tuple(torch.empty_like(grad, dtype=x.dtype) for grad, x in pairs)


def _refuse_second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError("contrastive_loss: it can be differentiated once only")


_backward.register_autograd(_refuse_second_derivative)
