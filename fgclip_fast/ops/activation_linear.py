"""Bias, activation and a linear layer, of which only the input is saved for the backward pass."""

from typing import Any, Literal

import torch
from torch import Tensor

from fgclip_fast.ops import native, reference
from fgclip_fast.ops.linear import product

Kind = Literal["quick_gelu", "gelu"]


def activation_linear(hidden: Tensor, bias: Tensor, weight: Tensor, kind: Kind = "quick_gelu") -> Tensor:
    """Compute ``activation(hidden + bias) @ weight.T``, the second half of an MLP.

    ``hidden`` is the first layer's product without its bias, and the bias of the second is left to what reads the
    result (:func:`norm_linear`). The activation's output is not saved: the pass that makes its gradient makes it again.
    Source of quick_gelu, ``x * sigmoid(1.702 x)``: arXiv 1606.08415.

    Args:
        hidden: Tensor[..., H], dtype of ``weight``.
        bias: Tensor[H], fp32.
        weight: Tensor[O, H].
        kind: "quick_gelu" or "gelu" (exact, by erf).

    Returns:
        Tensor[..., O], dtype of ``weight``, differentiable once.

    Raises:
        ValueError: a shape or dtype does not fit, or the kind is unknown; the message names the argument.
    """
    H = hidden.shape[-1]
    if weight.dim() != 2 or weight.shape[1] != H or weight.dtype != hidden.dtype:
        got = f"{list(weight.shape)} {weight.dtype}"
        raise ValueError(f"activation_linear: weight must be [O, {H}] {hidden.dtype} like hidden, got {got}")
    if bias.shape != (H,):
        raise ValueError(f"activation_linear: bias must be [{H}], got {list(bias.shape)}")
    if kind not in ("quick_gelu", "gelu"):
        raise ValueError(f"activation_linear: kind must be quick_gelu or gelu, got {kind!r}")
    return _ActivationLinear.apply(hidden, bias, weight, kind)


class _ActivationLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, bias: Tensor, weight: Tensor, kind: str) -> Tensor:
        ctx.save_for_backward(hidden, bias, weight)
        ctx.kind = kind
        return product(_forward(hidden, bias, kind), weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        hidden, bias, weight = ctx.saved_tensors
        rows = grad_out.reshape(-1, len(weight))
        grad = product(rows, weight.T).view(hidden.shape)
        active, grad_bias = _backward(grad, hidden, bias, ctx.kind)  # in place: grad is now that of hidden
        grad_weight = product(rows.T, active.view(-1, weight.shape[1]).T) if ctx.needs_input_grad[2] else None
        return grad, grad_bias, grad_weight, None


@torch.library.custom_op("fgclip_fast::activation", mutates_args=())
def _forward(hidden: Tensor, bias: Tensor, kind: str) -> Tensor:
    server = _server(hidden)
    if server == "torch":
        return reference.activation((hidden.to(bias.dtype) + bias), kind).to(hidden.dtype)
    out = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    if server == "triton":
        _triton().forward(hidden, bias, kind, out)
    else:
        from fgclip_fast import _native  # here, since the extension may not be built

        # The names hold the copies until the extension returns.
        hidden, bias = hidden.contiguous(), bias.float()
        _native.activation_linear_forward_cpu(
            hidden=native.address(hidden),
            bias=native.address(bias),
            out=native.address(out),
            rows=out.numel() // len(bias),
            width=len(bias),
            quick=kind == "quick_gelu",
            dtype=native.dtype(hidden),
        )
    return out


@_forward.register_fake
def _(hidden: Tensor, bias: Tensor, kind: str) -> Tensor:
    return torch.empty_like(hidden, memory_format=torch.contiguous_format)


@torch.library.custom_op("fgclip_fast::activation_backward", mutates_args=("grad",))
def _backward(grad: Tensor, hidden: Tensor, bias: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Turn ``grad`` into the gradient of ``hidden``; return the activation's output and the gradient of ``bias``."""
    server = _server(hidden)
    if server == "torch":
        x = hidden.to(bias.dtype) + bias
        if kind == "gelu":
            grad_hidden = torch.ops.aten.gelu_backward(grad.to(bias.dtype), x)
        else:
            gate = torch.sigmoid(1.702 * x)
            grad_hidden = grad * (gate + 1.702 * x * gate * (1 - gate))
        grad.copy_(grad_hidden)
        return reference.activation(x, kind).to(hidden.dtype), grad_hidden.reshape(-1, len(bias)).sum(0)
    active = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    if server == "triton":
        return active, _triton().backward(grad, hidden, bias, kind, active)
    from fgclip_fast import _native

    grad_bias = torch.empty_like(bias, dtype=torch.float32)
    hidden, bias = hidden.contiguous(), bias.float()
    _native.activation_linear_backward_cpu(
        grad=native.address(grad),
        hidden=native.address(hidden),
        bias=native.address(bias),
        out=native.address(active),
        grad_bias=native.address(grad_bias),
        rows=active.numel() // len(bias),
        width=len(bias),
        quick=kind == "quick_gelu",
        dtype=native.dtype(hidden),
    )
    return active, grad_bias


@_backward.register_fake
def _(grad: Tensor, hidden: Tensor, bias: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    return torch.empty_like(hidden, memory_format=torch.contiguous_format), torch.empty_like(bias)


def _server(hidden: Tensor) -> str:
    """The fastest that takes this dtype on this device: "triton", "native" or "torch"."""
    if not native.serves("activation_linear", hidden.device) or hidden.dtype == torch.float64 or hidden.numel() == 0:
        return "torch"
    return native.SERVERS["activation_linear"][hidden.device.type]


def _triton() -> Any:
    from fgclip_fast.kernels import activation_linear  # here, since a CPU-only install has no Triton

    return activation_linear
