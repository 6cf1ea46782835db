"""Causal attention of every token to its ancestors in a prefix tree."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fgclip_fast.ops import native, reference, segment_attention, tile_attention
from fgclip_fast.ops.tree import REACH, TILE, Tree

MAX_HEAD_DIM = 128
"""Of kernels/tree_attention.py: wider heads do not fit into registers."""

_PACKAGES = {  # of a backend: the module that it needs, and the way to get it
    "triton": ("triton", ""),
    "flash": ("flash_attn", "; pip install 'fgclip_fast[flash]'"),
    "varlen": ("torch.nn.attention.varlen", "; it came with torch 2.10"),
    "xformers": ("xformers", "; pip install 'fgclip_fast[xformers]'"),
}


def tree_attention(q: Tensor, k: Tensor, v: Tensor, tree: Tree, backend: str = "auto") -> Tensor:
    """Softmax attention of each token to its ancestors and itself, scaled by ``head_dim ** -0.5``.

    An ancestor of any token in a tile of TILE tokens lies in the tile, or is an ancestor of the tile's first token
    (subtrees are contiguous): a tile's keys are its spine and itself, under the mask ``j <= i < end[j]``.

    Args:
        q, k, v: Tensor[T, heads, head_dim], fp32, fp16 or bf16, alike in all.
        tree: Of T tokens, on the device of ``q``.
        backend: One of BACKENDS, or "auto": the first of them that runs here.

    Returns:
        Tensor[T, heads, head_dim], differentiable in ``q``, ``k`` and ``v``; the same bits every time.

    Raises:
        ValueError: A shape, dtype or device does not fit, or ``backend`` does not run here; the message says why.
    """
    _check(q, k, v, tree)
    if native.wants_reference():
        return reference.tree_attention(q, k, v, tree.end)
    return _ATTENTIONS[_chosen(backend, q)](q, k, v, tree)


def why_not(backend: str, device_type: str, dtype: torch.dtype = torch.bfloat16, head_dim: int = 64) -> str | None:
    """None where ``backend`` runs, else the reason and the way out, in one sentence."""
    if backend == "sdpa":
        return None
    package, way_out = _PACKAGES[backend]
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed{way_out}"
    if device_type != "cuda" and not (backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1"):
        return f"{backend} needs a GPU, got {device_type}"
    if backend == "triton":
        fits = dtype in (torch.float32, torch.float16, torch.bfloat16) and head_dim <= MAX_HEAD_DIM
        takes = f"fp32, fp16 or bf16 and head_dim <= {MAX_HEAD_DIM}"
    else:
        fits = dtype in (torch.float16, torch.bfloat16) and head_dim % 8 == 0
        takes = "fp16 or bf16 and head_dim in multiples of 8"
    return None if fits else f"{backend} takes {takes}, got {dtype} and {head_dim}"


def _chosen(backend: str, q: Tensor) -> str:
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"tree_attention: backend must be auto or one of {', '.join(BACKENDS)}, got {backend!r}")
    here = q.device.type, q.dtype, q.shape[2]
    if backend == "auto":
        # what runs on a CPU besides sdpa is there for tests
        return next(name for name in BACKENDS if name == "sdpa" or (q.is_cuda and why_not(name, *here) is None))
    if reason := why_not(backend, *here):
        raise ValueError(f"tree_attention: backend {backend!r} does not run here: {reason}")
    return backend


def _check(q: Tensor, k: Tensor, v: Tensor, tree: Tree) -> None:
    T = len(tree.end)
    if q.dim() != 3 or len(q) != T:
        raise ValueError(f"tree_attention: q must be [T, heads, head_dim] with T = {T}, got {list(q.shape)}")
    for name, tensor in (("k", k), ("v", v)):
        if (tensor.shape, tensor.dtype, tensor.device) != (q.shape, q.dtype, q.device):
            came = f"{list(tensor.shape)} {tensor.dtype} on {tensor.device}"
            raise ValueError(
                f"tree_attention: {name} must be like q, {list(q.shape)} {q.dtype} on {q.device}, got {came}"
            )
    if tree.end.device != q.device:
        raise ValueError(f"tree_attention: tree must be on the device of q, {q.device}, got {tree.end.device}")


def _triton(q: Tensor, k: Tensor, v: Tensor, tree: Tree) -> Tensor:
    return _forward(q, k, v, list(tree))[0]


@torch.library.custom_op("fgclip_fast::tree_attention", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, tree: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Output [T, heads, head_dim] and log-sum-exp to base 2 [heads, T], fp32."""
    from fgclip_fast.kernels import tree_attention  # here, since a CPU-only install has no Triton

    return tree_attention.forward(q, k, v, Tree(*tree), TILE)


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, tree: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    T, heads, _ = q.shape
    return torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(heads, T, dtype=torch.float32)


@torch.library.custom_op("fgclip_fast::tree_attention_backward", mutates_args=())
def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, tree: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    from fgclip_fast.kernels import tree_attention_backward

    return tree_attention_backward.backward(grad, q, k, v, out, lse, Tree(*tree), TILE, REACH)


@_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, tree: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | list[None], ...]:
    q, k, v, out, lse, *tree = ctx.saved_tensors
    return *_backward(grad, q, k, v, out, lse, tree), [None] * len(tree)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, tree = inputs
    ctx.set_materialize_grads(False)  # else zeros are filled in for the log-sum-exp
    ctx.save_for_backward(q, k, v, *output, *tree)


_forward.register_autograd(_differentiate, setup_context=_setup_context)


_ATTENTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Tree], Tensor]] = {
    "triton": _triton,
    "flash": segment_attention.flash,
    "varlen": segment_attention.varlen,
    "xformers": segment_attention.xformers,
    "sdpa": tile_attention.sdpa,
}
BACKENDS = tuple(_ATTENTIONS)
"""Fastest first: our kernel; flash-attn, torch's varlen_attn and xformers by segments; tiles in plain torch."""
