"""Engine of the contrastive loss on a GPU: Triton kernels and cuBLAS products.

Its three functions are those of ``Engine`` in ``fgclip_fast/ops/contrastive_engine.py``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fgclip_fast.kernels import contrastive_tuning as tuning
from fgclip_fast.kernels.contrastive_loss import (
    FP16_LOSS_SCALE,
    Ids,
    Side,
    gradient_grid,
    gradients,
    product_,
    side,
    statistics,
)
from fgclip_fast.kernels.launch import on_own_device
from fgclip_fast.kernels.lse import Lse


@on_own_device
def whole(
    image: Tensor, text: Tensor, scale: Tensor, text_ids: Tensor | None, wanted: Sequence[bool], memory_budget: int
) -> tuple[Lse, Lse, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Compute log-sum-exps, own logits and the wanted gradients of one process's batch.

    ``memory_budget`` is accepted and ignored: a part of the logits stays in the L2 cache, and none is kept.
    """
    rows, columns = side(image, text_ids), side(text, text_ids)
    row_lse, column_lse, positive = statistics(rows, columns, scale, 0, with_columns=True)
    shapes = [x.shape if wants else (0,) for x, wants in zip((image, text, scale), wanted, strict=True)]
    grad_image, grad_text, grad_scale = (scale.new_zeros(shape) for shape in shapes)
    scale_sums = _scale_sums(rows, columns)
    for m, n, weights in gradients(rows, columns, row_lse, column_lse, scale, 0, scale_sums) if any(wanted) else ():
        if wanted[0]:
            product_(grad_image[m], weights, columns.operand[n], add=True)
        if wanted[1]:
            product_(grad_text[n], weights.T, rows.operand[m], add=True)
    for grad, own in ((grad_image, rows), (grad_text, columns)):
        if grad.ndim == 2:
            _finish_(grad, own, scale)
    if wanted[2]:
        grad_scale = scale_sums.sum() / (2 * max(1, len(image)))
    return row_lse, column_lse, positive, (grad_image, grad_text, grad_scale)


@on_own_device
def own_lse(rows: Tensor, columns: Tensor, scale: Tensor, ids: Ids | None, first: int) -> tuple[Lse, Tensor]:
    """Compute the log-sum-exps of a rank's rows over all columns, and their own logits; all [B]."""
    row_ids, column_ids = ids or (None, None)
    lse, _, positive = statistics(side(rows, row_ids), side(columns, column_ids), scale, first, with_columns=False)
    return lse, positive


@on_own_device
def own_gradient(
    rows: Tensor, columns: Tensor, scale: Tensor, row_lse: Lse, column_lse: Lse, ids: Ids | None, first: int
) -> tuple[Tensor, Tensor]:
    """Compute the gradient of a rank's rows [B, D], times the number of ranks, and their share of the scale's."""
    row_ids, column_ids = ids or (None, None)
    own, others = side(rows, row_ids), side(columns, column_ids)
    grad, scale_sums = torch.zeros_like(rows, dtype=torch.float32), _scale_sums(own, others)
    for m, n, weights in gradients(own, others, row_lse, column_lse, scale, first, scale_sums):
        product_(grad[m], weights, others.operand[n], add=True)
    _finish_(grad, own, scale)
    return grad, scale_sums.sum() / (2 * max(1, len(rows)))


def _scale_sums(rows: Side, columns: Side) -> Tensor:
    """Make a zero for each program of a part's gradient kernel, which adds its share of the scale's gradient to it."""
    B, N, dtype = len(rows.embedding), len(columns.embedding), rows.embedding.dtype
    grid = gradient_grid(*tuning.part_shape(tuning.target_of(rows.inverse.device), dtype, B, N))
    return rows.inverse.new_zeros(grid[0] * grid[1])


def _finish_(grad: Tensor, own: Side, scale: Tensor) -> None:
    """Turn sums of ``gradient of logit * gain * operand`` into the gradient of ``own.embedding``, in place."""
    unit = own.embedding * own.inverse[:, None]
    if own.operand is not own.embedding:
        grad.mul_((own.inverse / FP16_LOSS_SCALE**2)[:, None])
    grad.addcmul_(unit, torch.linalg.vecdot(unit, grad)[:, None], value=-1).mul_(scale / (2 * max(1, len(grad))))
