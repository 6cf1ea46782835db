"""Products with the weights of a layer, by the faster of torch's two libraries for them on this CPU."""

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``rows @ weight.T + bias``.

    Args:
        rows: Tensor[..., K].
        weight: Tensor[N, K], dtype of ``rows``.
        bias: Tensor[N], or None.

    Returns:
        Tensor[..., N], differentiable once.
    """
    return _Linear.apply(rows, weight, bias) if _by_onednn(rows, weight) else F.linear(rows, weight, bias)


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute what :func:`linear` does, without a gradient: for the forward and backward passes of other ops.

    Torch multiplies in fp32 by MKL, which uses no AVX512 on AMD's CPUs; oneDNN, which torch has for bf16,
    does: 2.2 times as fast on an AMD EPYC (Zen 5), equally fast on a Zen 4, for the sizes of ViT-B/16.
    """
    if not _by_onednn(rows, weight):
        return F.linear(rows, weight, bias)
    dense = weight if weight.is_contiguous() or weight.T.is_contiguous() else weight.contiguous()
    return torch.ops.mkldnn._linear_pointwise(rows, dense, bias, "none", [], "")


def write_product(out: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Write ``rows @ weight.T``, of Tensor[R, K] and Tensor[N, K], to ``out``, Tensor[R, N], without a gradient."""
    if _by_onednn(rows, weight):  # which has no such argument, yet is faster with the copy
        return out.copy_(product(rows, weight))
    return torch.mm(rows, weight.T, out=out)


def add_product(total: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Add ``rows @ weight.T``, of Tensor[R, K] and Tensor[N, K], to ``total`` in place, without a gradient."""
    return total.add_(product(rows, weight)) if _by_onednn(rows, weight) else total.addmm_(rows, weight.T)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return product(rows, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        wants_rows, wants_weight, wants_bias = ctx.needs_input_grad
        flat = grad.reshape(-1, len(weight))
        return (
            product(grad, weight.T) if wants_rows else None,
            product(flat.T, rows.reshape(-1, rows.shape[-1]).T) if wants_weight else None,
            flat.sum(0) if wants_bias else None,
        )


def _by_onednn(rows: Tensor, weight: Tensor) -> bool:
    """True where oneDNN is the faster one and can take these; a compiler or an exporter gets what it knows."""
    if rows.device.type != "cpu" or not rows.dtype == weight.dtype == torch.float32 or not onednn_is_faster():
        return False
    elsewhere = torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    return rows.numel() > 0 and weight.numel() > 0 and not elsewhere


@cache
def onednn_is_faster() -> bool:
    """True on AMD's CPUs with AVX512. Told by their name and not by time, so that a run repeats its bits."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    described = Path("/proc/cpuinfo")
    name = described.read_text(errors="replace") if described.exists() else platform.processor()
    return "AuthenticAMD" in name
