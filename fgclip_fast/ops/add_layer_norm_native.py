"""The passes of add_layer_norm in C++ (csrc/cpu/add_layer_norm.cpp), called as kernels/add_layer_norm.py is.

Import it only where the extension is built.
"""

from torch import Tensor

from fgclip_fast import _native
from fgclip_fast.ops import native


def forward(
    residual: Tensor,
    update: Tensor | None,
    update_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    total: Tensor | None,
    normed: Tensor,
    statistics: Tensor,
) -> None:
    """Fill ``total`` and ``normed``, [..., W], and ``statistics [2, rows]``; without an update ``total`` is None."""
    # The names hold the copies until the extension returns.
    residual, weight, bias = residual.contiguous(), weight.float().contiguous(), bias.float().contiguous()
    update = None if update is None else update.contiguous()
    update_bias = None if update_bias is None else update_bias.float().contiguous()
    _native.add_layer_norm_forward_cpu(
        residual=native.address(residual),
        update=native.address(update),
        update_bias=native.address(update_bias),
        weight=native.address(weight),
        bias=native.address(bias),
        total=native.address(total),
        normed=native.address(normed),
        statistics=native.address(statistics),
        rows=statistics.shape[1],
        width=residual.shape[-1],
        eps=eps,
        stream=native.dtype(residual),
        update_dtype=native.dtype(normed if update is None else update),
        normed_dtype=native.dtype(normed),
    )


def backward(
    grad_normed: Tensor,
    grad_total: Tensor | None,
    total: Tensor,
    statistics: Tensor,
    weight: Tensor,
    bias: Tensor,
    grad_residual: Tensor,
    grad_other: Tensor | None,
    normed: Tensor | None,
) -> Tensor:
    """Fill the gradients of the stream and, unless None, of the update in another dtype, and the normalised rows.

    Returns:
        Tensor[3, W], fp32: gradients of ``weight``, ``bias`` and the update's bias.
    """
    columns = statistics.new_empty(3, total.shape[-1])
    grad_total = None if grad_total is None else grad_total.to(total.dtype).contiguous()
    grad_normed, total, statistics = grad_normed.contiguous(), total.contiguous(), statistics.contiguous()
    weight, bias = weight.float().contiguous(), bias.float().contiguous()
    _native.add_layer_norm_backward_cpu(
        grad_total=native.address(grad_total),
        grad_normed=native.address(grad_normed),
        total=native.address(total),
        statistics=native.address(statistics),
        weight=native.address(weight),
        bias=native.address(bias),
        grad_residual=native.address(grad_residual),
        grad_other=native.address(grad_other),
        normed=native.address(normed),
        columns=native.address(columns),
        rows=statistics.shape[1],
        width=total.shape[-1],
        stream=native.dtype(total),
        normed_dtype=native.dtype(grad_normed),
        other_dtype=native.dtype(grad_normed if grad_other is None else grad_other),
    )
    return columns
