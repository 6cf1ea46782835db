"""Hard-negative loss: each region picks its own text among similar wrong ones (arXiv 2505.05071)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fgclip_fast.ops import native, reference

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Scores(NamedTuple):
    """Similarities of texts to their regions, and ranks of the right texts."""

    similarity: Tensor
    """Tensor[M], fp32: cosine similarity of each text to its region."""
    rank: Tensor
    """Tensor[R], int64: number of the region's negatives that are more similar than its positive; 0 is best."""
    correct: Tensor
    """Tensor[R], bool: no negative is more similar; a tie with the positive counts as correct."""


def hard_negative_loss(regions: Tensor, texts: Tensor, offsets: Tensor, scale: Tensor) -> Tensor:
    """Compute the mean cross-entropy of regions over their own texts; the first text of each is the right one.

    Region ``r`` chooses among ``texts[offsets[r]:offsets[r + 1]]`` by scaled cosine similarity; a region without a
    negative (a group of one text) is left out of the mean. Source: arXiv 2505.05071, hard fine-grained negative loss.

    Args:
        regions: Tensor[R, D], fp32, fp16 or bf16: normalised here, in fp32. A zero row, or one shorter than 1e-12, has
            similarity 0 and gradient 0, as has one whose square fp32 cannot hold (longer than 1e19). fp64 is computed
            in fp64, to check gradients with.
        texts: Tensor[M, D], dtype and device of ``regions``.
        offsets: Tensor[R + 1], int32 or int64, strictly rising from 0 to M.
        scale: Tensor[], fp32: ``logit_scale.exp()``.

    Returns:
        Tensor[], fp32, differentiable once in ``regions``, ``texts`` and ``scale``; 0 where no region has a negative.

    Raises:
        ValueError: a shape, dtype or device does not fit, or the offsets do not rise (on a GPU these are read only
            with FGCLIP_CHECK=1, since the host would wait); the message names the argument.
    """
    _check("hard_negative_loss", regions, texts, offsets)
    _check_scale(regions, scale)
    if not native.serves("hard_negative_loss", regions.device):
        _check_rising("hard_negative_loss", offsets, texts)
        return reference.hard_negative_loss(regions, texts, offsets, scale)
    return _forward(regions, texts, offsets, scale)[0]


def hard_negative_scores(regions: Tensor, texts: Tensor, offsets: Tensor) -> Scores:
    """Compare each text with its region, and rank each region's first, right text; arguments as of the loss."""
    _check("hard_negative_scores", regions, texts, offsets)
    regions, texts = regions.detach(), texts.detach()
    if not native.serves("hard_negative_loss", regions.device):
        _check_rising("hard_negative_scores", offsets, texts)
        similarity, rank = reference.hard_negative_scores(regions, texts, offsets)
        return Scores(similarity, rank, rank == 0)
    scale = torch.ones((), dtype=_statistics(regions), device=regions.device)
    _, _, rank, similarity, _ = _forward(regions, texts, offsets, scale)
    return Scores(similarity, rank, rank == 0)


def _check(op: str, regions: Tensor, texts: Tensor, offsets: Tensor) -> None:
    if regions.dim() != 2 or regions.dtype not in DTYPES:
        raise ValueError(f"{op}: regions must be [R, D] of fp32, fp16 or bf16, got {_what(regions)}")
    if texts.dim() != 2 or (texts.shape[1], texts.dtype) != (regions.shape[1], regions.dtype):
        raise ValueError(f"{op}: texts must be [M, {regions.shape[1]}] of {regions.dtype}, got {_what(texts)}")
    if offsets.shape != (len(regions) + 1,) or offsets.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"{op}: offsets must be [R + 1] = [{len(regions) + 1}] of int32 or int64, got {_what(offsets)}"
        )
    for name, tensor in (("texts", texts), ("offsets", offsets)):
        if tensor.device != regions.device:
            raise ValueError(f"{op}: {name} must be on {regions.device} like regions, got {tensor.device}")


def _check_scale(regions: Tensor, scale: Tensor) -> None:
    if not isinstance(scale, Tensor):
        raise ValueError(f"hard_negative_loss: scale must be a tensor, logit_scale.exp(), got {scale!r}")
    if scale.dim() != 0 or (scale.dtype, scale.device) != (_statistics(regions), regions.device):
        wanted, got = f"[] of {_statistics(regions)} on {regions.device}", f"{_what(scale)} on {scale.device}"
        raise ValueError(f"hard_negative_loss: scale must be {wanted}, got {got}")


def _what(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} of {tensor.dtype}"


def _statistics(rows: Tensor) -> torch.dtype:
    return torch.promote_types(rows.dtype, torch.float32)


def _check_rising(op: str, offsets: Tensor, texts: Tensor) -> None:
    if not native.may_read(offsets):
        return
    first, last = int(offsets[0]), int(offsets[-1])
    if (first, last) != (0, len(texts)):
        raise ValueError(f"{op}: offsets must run from 0 to M = {len(texts)}, got {first} to {last}")
    stays = (offsets[1:] <= offsets[:-1]).nonzero()  # a difference of int32 may wrap
    if len(stays):
        r = int(stays[0])
        raise ValueError(
            f"{op}: offsets must rise, got {offsets[r : r + 2].tolist()} at region {r}; each region needs its positive"
        )


@torch.library.custom_op("fgclip_fast::hard_negative_loss", mutates_args=(), device_types="cuda")
def _forward(
    regions: Tensor, texts: Tensor, offsets: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mean loss [], each region's loss [R] and rank of its positive [R], each text's similarity and 1 / length [M]."""
    from fgclip_fast.kernels import hard_negative_loss  # here, since a CPU-only install has no Triton

    _check_rising("hard_negative_loss", offsets, texts)
    return hard_negative_loss.forward(regions, texts, offsets, scale)


@_forward.register_kernel("cpu")
def _forward_cpu(
    regions: Tensor, texts: Tensor, offsets: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from fgclip_fast import _native  # here, since the extension may not be built

    _check_rising("hard_negative_loss", offsets, texts)
    loss, losses, rank, similarity, text_inverse = outputs = _empty_outputs(regions, texts, offsets, scale)
    rows = regions.contiguous(), texts.contiguous(), offsets.long().contiguous(), scale  # held until the call returns
    inputs = _native.HardNegativeInputs(*map(native.address, rows), *regions.shape)
    saved = _native.HardNegativeSaved(*map(native.address, (losses, similarity, text_inverse)))
    _native.hard_negative_loss_forward_cpu(
        inputs, saved, native.address(loss), native.address(rank), native.dtype(regions)
    )
    return outputs


@_forward.register_fake
def _empty_outputs(
    regions: Tensor, texts: Tensor, offsets: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    R, M = regions.shape[0], texts.shape[0]  # len would fix them in a compiled graph
    loss, losses, rank = torch.empty_like(scale), scale.new_empty(R), scale.new_empty(R, dtype=torch.int64)
    return loss, losses, rank, scale.new_empty(M), scale.new_empty(M)


@torch.library.custom_op("fgclip_fast::hard_negative_loss_backward", mutates_args=(), device_types="cuda")
def _backward(
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
    from fgclip_fast.kernels import hard_negative_loss

    return hard_negative_loss.backward(grad_loss, regions, texts, offsets, scale, losses, similarity, text_inverse)


@_backward.register_kernel("cpu")
def _backward_cpu(grad_loss: Tensor, *problem: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    from fgclip_fast import _native

    regions, texts, offsets, scale, *results = problem
    grads = _empty_grads(grad_loss, *problem)
    rows = regions.contiguous(), texts.contiguous(), offsets.long().contiguous(), scale
    inputs = _native.HardNegativeInputs(*map(native.address, rows), *regions.shape)
    saved = _native.HardNegativeSaved(*map(native.address, results))
    addresses = native.address(grads[0]), native.address(grads[1]), native.address(grads[2])
    _native.hard_negative_loss_backward_cpu(native.address(grad_loss), inputs, saved, *addresses, native.dtype(regions))
    return grads


@_backward.register_fake
def _empty_grads(grad_loss: Tensor, *problem: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    regions, texts, _, scale, *_ = problem
    grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (regions, texts, scale)]
    return grads[0], grads[1], grads[2]


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    _, losses, rank, similarity, text_inverse = output
    ctx.mark_non_differentiable(losses, rank, similarity, text_inverse)
    ctx.save_for_backward(*inputs, losses, similarity, text_inverse)


def _differentiate(ctx: Any, grad_loss: Tensor, *_: Tensor | None) -> tuple[Tensor, Tensor, None, Tensor]:
    grad_regions, grad_texts, grad_scale = _backward(grad_loss, *ctx.saved_tensors)
    return grad_regions, grad_texts, None, grad_scale


_forward.register_autograd(_differentiate, setup_context=_setup_context)
_forward.register_vmap(native.refuse_vmap)
