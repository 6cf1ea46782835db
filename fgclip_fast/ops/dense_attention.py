"""Softmax attention over dense keys: torch's fused kernel, with a backward pass of products where its own is slow."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """Compute ``softmax(q @ k.T / sqrt(d)) @ v`` for each head.

    The forward pass is torch's scaled_dot_product_attention. So is the backward pass, but in half precision on a CPU:
    there five batched products take a third of its time.

    Args:
        q: Tensor[B, heads, M, d], fp32, bf16 or fp16.
        k: Tensor[B, heads, N, d].
        v: Tensor[B, heads, N, d].
        mask: Tensor[B, 1, M, N], bool: True where a query sees a key; each query sees one at least. None: all.
        is_causal: query ``i`` sees the keys up to ``i``; without a mask, and M = N.

    Returns:
        Tensor[B, heads, M, d], differentiable; once, where the backward pass is by products.
    """
    trains = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if not trains or not q.is_cpu or q.dtype not in HALF or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)
    if is_causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    return _BackwardByProducts.apply(q, k, v, mask)


class _BackwardByProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        # The same bits as without a gradient: gradient caching embeds each sample both ways.
        ctx.save_for_backward(q, k, v, mask)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        # Copied once here: each product would copy the rows of a strided factor anew.
        q, k, v, grad = (x.contiguous() for x in (q * scale, k, v, grad))
        logit = torch.matmul(q, k.transpose(-1, -2))
        if mask is not None:
            logit.masked_fill_(~mask, -torch.inf)
        weight = logit.softmax(-1)  # in fp32 inside
        grad_v = torch.matmul(weight.transpose(-1, -2), grad)
        grad_weight = torch.matmul(grad, v.transpose(-1, -2))
        grad_logit = torch.ops.aten._softmax_backward_data(grad_weight, weight, -1, weight.dtype)
        grad_q = torch.matmul(grad_logit, k).mul_(scale)
        return grad_q, torch.matmul(grad_logit.transpose(-1, -2), q), grad_v, None
