"""Symmetric contrastive (InfoNCE) loss: exact, without the N x N logits of the usual code, on one process or many."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from fgclip_fast.ops import contrastive_autograd, contrastive_torch, native
from fgclip_fast.ops.contrastive_engine import Engine, Lse, mean_loss

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
    """Compute the mean cross-entropy of images over all texts and of texts over all images.

    Image ``i`` and text ``i`` are a pair; the other texts are its negatives. With a ``group``, the pairs of all its
    ranks are one batch: each rank passes its own rows and gets the mean over them, the gradient of its own rows times
    the number of ranks, and its rows' share of the scale's gradient, so that averaging over ranks, as DDP does, gives
    one process's loss and gradients. B must be equal on every rank (:func:`agree_batch_size`). Without a group,
    nothing is communicated. Source: arXiv 2103.00020 (CLIP).

    Args:
        image: Tensor[B, D], fp32, fp16, bf16 (or fp64, slowly): normalised here, in fp32. A row shorter than 1e-12
            counts as zero, and its cosines as 0. Lengths above 1e18 are beyond fp32.
        text: Tensor[B, D], dtype and device of ``image``.
        scale: Tensor[], ``logit_scale.exp()``.
        group: Process group whose ranks share the batch; None: this process alone.
        text_ids: Tensor[B], int64; texts of equal id are not negatives of each other. None: all are.
        memory_budget: Bytes of extra memory that a CPU may use to keep logits between its two passes instead of
            computing them again; on a GPU, for a stripe of their gradients. A loss with a ``group`` has its own.

    Returns:
        Tensor[], fp32 (of fp64 inputs fp64), once differentiable in ``image``, ``text`` and ``scale``, in reverse mode
        and without ``torch.vmap``; 0 for an empty batch and for a single pair.

    Raises:
        ValueError: a shape, dtype or device does not fit; the message names the argument.
    """
    _check(image, text, scale, text_ids, memory_budget)
    wanted = [torch.is_grad_enabled() and x.requires_grad for x in (image, text, scale)]
    inputs = image.detach(), text.detach(), scale.detach().to(torch.promote_types(image.dtype, torch.float32))
    loss: Tensor
    if group is None or dist.get_world_size(group) == 1:
        loss, *gradients = _whole(*inputs, text_ids, memory_budget, wanted)
    else:
        loss, *gradients = _own_part(*inputs, text_ids, group, wanted)
    return contrastive_autograd.attach(image, text, scale, loss, *gradients) if any(wanted) else loss


def agree_batch_size(batch_size: int, group: dist.ProcessGroup | None, device: torch.device | str = "cpu") -> int:
    """Compare the batch sizes of all ranks and return their sum; every rank of ``group`` calls it once, at the start.

    Args:
        batch_size: Pairs of this rank.
        group: Process group of the loss; None: this process alone, whose batch size is returned.
        device: Device of the group's backend: a GPU for NCCL.

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
            f"contrastive_loss: text must be like image, {list(image.shape)} {image.dtype} on {image.device}, "
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
    """Compute the loss of this rank's rows among all ranks', and the gradients of its own rows and of the scale."""
    first = dist.get_rank(group) * len(image)
    all_image, all_text = _gather(torch.stack((image, text), 1), group).unbind(1)
    ids = text_ids, None if text_ids is None else _gather(text_ids, group)
    image_lse, positive = _own_lse(image, all_text, scale, *ids, first)
    text_lse, _ = _own_lse(text, all_image, scale, *ids, first)
    loss = mean_loss(Lse(*image_lse), Lse(*text_lse), positive)
    grad_image = grad_text = grad_scale = scale.new_empty(0)
    if any(wanted):  # a collective: every rank comes here, or none
        all_image_lse, all_text_lse = _gather(torch.stack((image_lse.T, text_lse.T), 1), group).permute(1, 2, 0)
    if wanted[0] or wanted[2]:  # the scale's gradient is counted once, on the rows of images
        grad_image, grad_scale = _own_gradient(image, all_text, scale, image_lse, all_text_lse, *ids, first)
    if wanted[1]:
        grad_text, _ = _own_gradient(text, all_image, scale, text_lse, all_image_lse, *ids, first)
    return loss, grad_image, grad_text, grad_scale


def _gather(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    everyone = own.new_empty(dist.get_world_size(group) * len(own), *own.shape[1:])
    all_gather(everyone, own.contiguous(), group=group)
    return everyone


def _engine(rows: Tensor) -> Engine:
    """Choose the engine for ``rows``: Triton and cuBLAS on a GPU, torch everywhere else."""
    # A grid without programs is a launch error; a single row's loss is 0 to the last bit in torch alone.
    fits = rows.is_cuda and rows.dtype != torch.float64 and len(rows) > 1
    if not fits or not native.serves("contrastive_loss", rows.device):
        return contrastive_torch
    from fgclip_fast.kernels import contrastive_engine  # here, since Triton may not be installed

    return contrastive_engine


# The three functions of an engine as custom ops, which torch.compile takes as they are.


@torch.library.custom_op("fgclip_fast::contrastive_loss", mutates_args=())
def _whole(
    image: Tensor, text: Tensor, scale: Tensor, text_ids: Tensor | None, memory_budget: int, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the loss of one process, and its gradients: image [B, D], text [B, D], scale []; empty unless wanted."""
    with torch.autocast(image.device.type, enabled=False):
        rows, columns, positive, gradients = _engine(image).whole(image, text, scale, text_ids, wanted, memory_budget)
        return mean_loss(rows, columns, positive), *gradients


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
    """Compute the two parts of each row's log-sum-exp over all columns, [2, B], and its own logit, [B]."""
    ids = None if row_ids is None or column_ids is None else (row_ids, column_ids)
    with torch.autocast(rows.device.type, enabled=False):
        lse, positive = _engine(rows).own_lse(rows, columns, scale, ids, first)
        return torch.stack(lse), positive


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
    """Compute the gradient of the rows, [B, D], and their share of the scale's, []; from what `_own_lse` gave."""
    ids = None if row_ids is None or column_ids is None else (row_ids, column_ids)
    lses = Lse(*row_lse.contiguous()), Lse(*column_lse.contiguous())
    with torch.autocast(rows.device.type, enabled=False):
        return _engine(rows).own_gradient(rows, columns, scale, *lses, ids, first)


@_own_gradient.register_fake
def _(
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    row_lse: Tensor,
    column_lse: Tensor,
    row_ids: Tensor | None,
    column_ids: Tensor | None,
    first: int,
) -> tuple[Tensor, Tensor]:
    return scale.new_empty(rows.shape), scale.new_empty(())
