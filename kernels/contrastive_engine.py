"""Engine of the contrastive loss on a GPU: Triton kernels and cuBLAS products.

Its three functions are those of ``Engine`` in ``fgclip_fast/ops/contrastive_engine.py``.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fgclip_fast.kernels.contrastive_gradient import gradients, product_
from fgclip_fast.kernels.contrastive_lse import statistics
from fgclip_fast.kernels.contrastive_side import FP16_LOSS_SCALE, Ids, Side, side
from fgclip_fast.kernels.launch import on_own_device
from fgclip_fast.kernels.lse import Lse

RANK_BYTES = 2**29
"""Bytes of sums, or of gradients of logits, that a rank's part of a loss holds at a time."""


@on_own_device
def whole(
    image: Tensor, text: Tensor, scale: Tensor, text_ids: Tensor | None, wanted: Sequence[bool], memory_budget: int
) -> tuple[Lse, Lse, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Compute log-sum-exps, own logits and the wanted gradients of one process's batch.

    No logits are kept: ``memory_budget`` holds the sums of tiles, and then a stripe of the logits' gradient.
    """
    rows, columns = side(image, text_ids), side(text, text_ids)
    row_lse, column_lse, positive = statistics(rows, columns, scale, 0, True, memory_budget)
    shapes = [x.shape if wants else (0,) for x, wants in zip((image, text, scale), wanted, strict=True)]
    grad_image, grad_text, grad_scale = (scale.new_zeros(shape) for shape in shapes)
    stripes = gradients(rows, columns, row_lse, column_lse, scale, 0, memory_budget) if any(wanted) else ()
    for m, weights, scale_sums in stripes:
        if wanted[0]:
            product_(grad_image[m], weights, columns.operand)
        if wanted[1]:
            product_(grad_text, weights.T, rows.operand[m], add=m.start > 0)
        if wanted[2] and m.stop == len(image):
            grad_scale = _grad_scale(scale_sums, scale, len(image))
    for grad, own in ((grad_image, rows), (grad_text, columns)):
        if grad.ndim == 2:
            _finish_(grad, own, scale)
    return row_lse, column_lse, positive, (grad_image, grad_text, grad_scale)


@on_own_device
def own_lse(rows: Tensor, columns: Tensor, scale: Tensor, ids: Ids | None, first: int) -> tuple[Lse, Tensor]:
    """Compute the log-sum-exps of a rank's rows over all columns, and their own logits; all [B]."""
    row_ids, column_ids = ids or (None, None)
    lse, _, positive = statistics(side(rows, row_ids), side(columns, column_ids), scale, first, False, RANK_BYTES)
    return lse, positive


@on_own_device
def own_gradient(
    rows: Tensor, columns: Tensor, scale: Tensor, row_lse: Lse, column_lse: Lse, ids: Ids | None, first: int
) -> tuple[Tensor, Tensor]:
    """Compute the gradient of a rank's rows [B, D], times the number of ranks, and their share of the scale's."""
    row_ids, column_ids = ids or (None, None)
    own, others = side(rows, row_ids), side(columns, column_ids)
    grad, grad_scale = torch.empty_like(rows, dtype=torch.float32), scale.new_zeros(())
    for m, weights, scale_sums in gradients(own, others, row_lse, column_lse, scale, first, RANK_BYTES):
        product_(grad[m], weights, others.operand)
        if m.stop == len(rows):
            grad_scale = _grad_scale(scale_sums, scale, len(rows))
    _finish_(grad, own, scale)
    return grad, grad_scale


def _grad_scale(scale_sums: Tensor, scale: Tensor, B: int) -> Tensor:
    """Turn the sum of gradients times logits in base 2 into the scale's gradient; cosines are logits over the scale."""
    return scale_sums.sum() / scale * (math.log(2) / (2 * B))


def _finish_(grad: Tensor, own: Side, scale: Tensor) -> None:
    """Turn sums of ``gradient of logit * gain * operand`` into the gradient of ``own.embedding``, in place."""
    unit = own.embedding * own.inverse[:, None]
    if own.operand is not own.embedding:
        grad.mul_((own.inverse / FP16_LOSS_SCALE**2)[:, None])
    grad.addcmul_(unit, torch.linalg.vecdot(unit, grad)[:, None], value=-1).mul_(scale / (2 * max(1, len(grad))))
