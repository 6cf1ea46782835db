"""Symmetric contrastive (InfoNCE) loss: exact, without the N x N logits of the usual code, on one process or many."""

import importlib
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from fgclip_fast.ops import contrastive_torch, native

all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # renamed in torch 2.14
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def contrastive_loss(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    group: dist.ProcessGroup | None = None,
    text_ids: Tensor | None = None,
    memory_budget: int = 2**30,
) -> Tensor:
    """Mean cross-entropy of images over all texts and of texts over all images; pair ``i`` is image and text ``i``.

    With a ``group``, the pairs of all its ranks are one batch: each rank gives its own rows and gets the mean over
    them, the gradient of its own rows times the number of ranks, and its rows' share of the scale's gradient, so that
    averaging over ranks, as DDP does, gives one process's loss and gradients. B must be equal on every rank
    (:func:`agree_batch_size`). Without one, nothing is communicated. Source: arXiv 2103.00020 (CLIP).

    Args:
        image: Tensor[B, D], fp32, fp16, bf16 (or fp64, slowly): normalised here, in fp32; a row shorter than 1e-12
            counts as zero, and its cosines as 0. Lengths above 1e18 are beyond fp32.
        text: Tensor[B, D], dtype and device of ``image``.
        scale: Tensor[], ``logit_scale.exp()``.
        group: process group whose ranks share the batch; None: this process alone.
        text_ids: Tensor[B], int64; texts of equal id are no negatives of each other. None: all are.
        memory_budget: bytes of extra memory that a CPU may use to keep logits rather than make them twice. With a
            ``group`` none are kept.

    Returns:
        Tensor[], fp32 (of fp64 inputs fp64), once differentiable in ``image``, ``text`` and ``scale``, in reverse mode
        and without ``torch.vmap``; 0 for no pair and for one.

    Raises:
        ValueError: a shape, dtype or device does not fit; the message names the argument.
    """
    _check(image, text, scale, text_ids, memory_budget)
    wanted = [torch.is_grad_enabled() and x.requires_grad for x in (image, text, scale)]
    inputs = image.detach(), text.detach(), scale.detach().to(torch.promote_types(image.dtype, torch.float32))
    if group is None or dist.get_world_size(group) == 1:
        loss, *gradients = _whole(*inputs, text_ids, memory_budget, wanted)
    else:
        loss, *gradients = _own_part(*inputs, text_ids, group, wanted)
    return _attach(image, text, scale, loss, *gradients) if any(wanted) else loss


def agree_batch_size(batch_size: int, group: dist.ProcessGroup | None, device: torch.device | str = "cpu") -> int:
    """The global batch size; to be called once, at the start, by every rank of ``group``.

    Raises:
        ValueError: on every rank, when their batch sizes differ.
    """
    if group is None:
        return batch_size
    sizes = torch.empty(dist.get_world_size(group), dtype=torch.int64, device=device)
    all_gather(sizes, torch.tensor([batch_size], device=device), group=group)
    if len(set(sizes.tolist())) > 1:
        raise ValueError(f"contrastive_loss: every rank must have the same batch size, got {sizes.tolist()} by rank")
    return int(sizes.sum())


def _check(image: Tensor, text: Tensor, scale: Tensor, text_ids: Tensor | None, memory_budget: int) -> None:
    for name, argument in (("image", image), ("text", text), ("scale", scale), ("text_ids", text_ids)):
        if not isinstance(argument, Tensor) and not (name == "text_ids" and argument is None):
            raise ValueError(f"contrastive_loss: {name} must be a tensor, got {type(argument).__name__}")
    if memory_budget < 0:
        raise ValueError(f"contrastive_loss: memory_budget must be at least 0 bytes, got {memory_budget}")
    if image.ndim != 2 or image.dtype not in DTYPES:
        raise ValueError(f"contrastive_loss: image must be [B, D] of floats, got {list(image.shape)} {image.dtype}")
    if text.shape != image.shape or text.dtype != image.dtype or text.device != image.device:
        raise ValueError(
            f"contrastive_loss: text must be as image, {list(image.shape)} {image.dtype} on {image.device}, "
            f"got {list(text.shape)} {text.dtype} on {text.device}"
        )
    if scale.ndim != 0 or not scale.is_floating_point() or scale.device != image.device:
        raise ValueError(
            f"contrastive_loss: scale must be one float, [], on {image.device}, "
            f"got {list(scale.shape)} {scale.dtype} on {scale.device}"
        )
    if text_ids is not None and (text_ids.shape != image.shape[:1] or text_ids.dtype != torch.int64):
        raise ValueError(
            f"contrastive_loss: text_ids must be [B] = [{len(image)}] int64, "
            f"got {list(text_ids.shape)} {text_ids.dtype}"
        )
    if text_ids is not None and text_ids.device != image.device:
        raise ValueError(f"contrastive_loss: text_ids must be on {image.device}, got {text_ids.device}")


def _own_part(
    image: Tensor, text: Tensor, scale: Tensor, text_ids: Tensor | None, group: dist.ProcessGroup, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss of this rank's rows among all ranks', and the gradients of its own rows and of the scale."""
    first = dist.get_rank(group) * len(image)
    all_image, all_text = _gather(torch.stack((image, text), 1), group).unbind(1)
    ids = text_ids, None if text_ids is None else _gather(text_ids, group)
    image_lse, positive = _own_lse(image, all_text, scale, *ids, first)
    text_lse, _ = _own_lse(text, all_image, scale, *ids, first)
    loss = contrastive_torch.mean_loss(image_lse, text_lse, positive)
    grad_image = grad_text = grad_scale = scale.new_empty(0)
    if any(wanted):  # on every rank or on none, as it makes a collective
        all_image_lse, all_text_lse = _gather(torch.stack((image_lse.T, text_lse.T), 1), group).permute(1, 2, 0)
    if wanted[0] or wanted[2]:  # the scale's is counted once, on the images' rows
        grad_image, grad_scale = _own_gradient(image, all_text, scale, image_lse, all_text_lse, *ids, first)
    if wanted[1]:
        grad_text, _ = _own_gradient(text, all_image, scale, text_lse, all_image_lse, *ids, first)
    return loss, grad_image, grad_text, grad_scale


def _gather(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    everyone = own.new_empty(dist.get_world_size(group) * len(own), *own.shape[1:])
    all_gather(everyone, own.contiguous(), group=group)
    return everyone


@torch.library.custom_op("fgclip_fast::contrastive_loss", mutates_args=())
def _whole(
    image: Tensor, text: Tensor, scale: Tensor, text_ids: Tensor | None, memory_budget: int, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss of the batch of one process, and its gradients: image [B, D], text [B, D], scale []; empty unless wanted."""
    with torch.autocast(image.device.type, enabled=False):
        engine = _engine(image)
        more = {"memory_budget": memory_budget} if engine is contrastive_torch else {}
        rows, columns, positive, gradients = engine.whole(image, text, scale, text_ids, list(wanted), **more)
        return contrastive_torch.mean_loss(rows, columns, positive), *gradients


@_whole.register_fake
def _(
    image: Tensor, text: Tensor, scale: Tensor, text_ids: Tensor | None, memory_budget: int, wanted: Sequence[bool]
) -> tuple[Tensor, ...]:
    shapes = (x.shape if wants else (0,) for x, wants in zip((image, text, scale), wanted, strict=True))
    return scale.new_empty(()), *(scale.new_empty(shape) for shape in shapes)


_whole.register_vmap(native.refuse_vmap)


@torch.library.custom_op("fgclip_fast::contrastive_loss_own_lse", mutates_args=())
def _own_lse(
    rows: Tensor, columns: Tensor, scale: Tensor, row_ids: Tensor | None, column_ids: Tensor | None, first: int
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each row over all columns, in its two parts, [2, B], and its own logit, [B]; all in base 2."""
    with torch.autocast(rows.device.type, enabled=False):
        lse, positive = _engine(rows).own_lse(rows, columns, scale, _both(row_ids, column_ids), first)
        return torch.stack(tuple(lse)), positive


@_own_lse.register_fake
def _(
    rows: Tensor, columns: Tensor, scale: Tensor, row_ids: Tensor | None, column_ids: Tensor | None, first: int
) -> tuple[Tensor, Tensor]:
    return scale.new_empty(2, len(rows)), scale.new_empty(len(rows))


@torch.library.custom_op("fgclip_fast::contrastive_loss_own_gradient", mutates_args=())
def _own_gradient(
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    row_lse: Tensor,
    column_lse: Tensor,
    row_ids: Tensor | None,
    column_ids: Tensor | None,
    first: int,
) -> tuple[Tensor, Tensor]:
    """Gradient of the rows [B, D] and their share of the scale's []."""
    ids, lses = _both(row_ids, column_ids), (contrastive_torch.Lse(*lse.contiguous()) for lse in (row_lse, column_lse))
    with torch.autocast(rows.device.type, enabled=False):
        return _engine(rows).own_gradient(rows, columns, scale, *lses, ids, first)


@_own_gradient.register_fake
def _(rows: Tensor, columns: Tensor, scale: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return scale.new_empty(rows.shape), scale.new_empty(())


def _engine(rows: Tensor) -> Any:
    """Who does the two passes over the logits: Triton and cuBLAS, or products in torch with C++ between them."""
    fits = rows.is_cuda and rows.dtype != torch.float64 and len(rows) > 0  # a grid of no programs is a launch error
    if not fits or not native.serves("contrastive_loss", rows.device):
        return contrastive_torch
    # here, since Triton may not be installed
    return importlib.import_module("fgclip_fast.kernels.contrastive_engine")


def _both(row_ids: Tensor | None, column_ids: Tensor | None) -> tuple[Tensor, Tensor] | None:
    return None if row_ids is None or column_ids is None else (row_ids, column_ids)


@torch.library.custom_op("fgclip_fast::contrastive_loss_attach", mutates_args=())
def _attach(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    loss: Tensor,
    grad_image: Tensor,
    grad_text: Tensor,
    grad_scale: Tensor,
) -> Tensor:
    """The loss, whose backward pass hands out the gradients that were made with it."""
    return loss.clone()


@_attach.register_fake
def _(image: Tensor, text: Tensor, scale: Tensor, loss: Tensor, *_: Tensor) -> Tensor:
    return torch.empty_like(loss)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    image, text, scale, _, *gradients = inputs
    ctx.save_for_backward(*gradients, image, text, scale)


def _hand_out(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: a checkpoint unpacks them no second time
    made, inputs = saved[:3], saved[3:]
    if _is_plain_one(grad_loss):  # no copy of both gradients
        gradients = tuple(grad.to(x.dtype) for grad, x in zip(made, inputs, strict=True))
    else:
        gradients = _backward(grad_loss, *made, *inputs)
    wanted = (grad if needed else None for grad, needed in zip(gradients, ctx.needs_input_grad[:3], strict=True))
    return *wanted, None, None, None, None


def _is_plain_one(grad_loss: Tensor) -> bool:
    """Whether the upstream gradient is 1 and may be looked at: not traced, not on a GPU, and no second derivative."""
    return type(grad_loss) is Tensor and grad_loss.is_cpu and not torch.is_grad_enabled() and grad_loss.item() == 1


_attach.register_autograd(_hand_out, setup_context=_keep)


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
    """The gradients of a loss of 1 times ``grad_loss``, in the dtypes of the inputs (which give nothing else)."""
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


def _no_second_derivative(ctx: Any, *grads: Tensor) -> NoReturn:
    raise RuntimeError("contrastive_loss: it can be differentiated once only")


_backward.register_autograd(_no_second_derivative)
