"""The transformer block of both towers; parameter names are those of the released state dict."""

from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from fgclip_fast.config import Model, Text, Vision
from fgclip_fast.model.attention import Attend


class Attention(nn.Module):
    """Projections to queries, keys and values, and back; ``attend`` mixes between them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def project(self, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of Tensor[..., width], alike."""
        return self.q_proj(normed), self.k_proj(normed), self.v_proj(normed)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, attend: Attend, layout: Any = None) -> Tensor:
        """``attend`` over the heads of Tensor[..., width]."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)) for x in (q, k, v))
        return attend(q, k, v, layout).flatten(-2)


class MLP(nn.Module):
    """Two linear layers around the activation."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.activation: Callable[[Tensor], Tensor] = quick_gelu if activation == "quick_gelu" else F.gelu

    def forward(self, normed: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(normed)))


def dense(part: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a block that treats each token by itself: compiled where the config says so.

    What mixes tokens stays out: its sizes change with each batch, and each change would compile it again.
    """

    @wraps(part)
    def call(block: "Block", *tensors: Tensor) -> Any:
        return (_compiled(part) if block.compiled else part)(block, *tensors)

    return call


@cache
def _compiled(part: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(part)  # not before it is wanted: this imports the compiler


class Block(nn.Module):
    """Pre-LayerNorm block: ``x += attention(LN1 x); x += MLP(LN2 x)``."""

    def __init__(self, part: Vision | Text, config: Model) -> None:
        super().__init__()
        self.compiled = config.compile
        self.self_attn = Attention(part.width, part.heads)
        self.layer_norm1 = nn.LayerNorm(part.width, eps=config.layer_norm_eps)
        self.mlp = MLP(part.width, part.mlp, config.activation)
        self.layer_norm2 = nn.LayerNorm(part.width, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor, attend: Attend, layout: Any = None, rows: Tensor | None = None) -> Tensor:
        """One block over tokens in any layout that ``attend`` understands.

        Args:
            hidden: Tensor[..., width].
            attend: a function of ``model/attention.py``.
            layout: what it needs to know beside q, k and v.
            rows: Tensor[M], integer: of all tokens, counted flat, only these leave the block (the others are still
                attended to). None: all.

        Returns:
            Tensor[..., width], or Tensor[M, width].
        """
        q, k, v = self.project(hidden)
        mixed = self.self_attn.mix(q, k, v, attend, layout)
        if rows is not None:
            hidden, mixed = (F.embedding(rows, x.flatten(0, -2)) for x in (hidden, mixed))  # rows may repeat
        return self.finish(hidden, mixed)

    @dense
    def project(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of Tensor[..., width], alike."""
        return self.self_attn.project(self.layer_norm1(hidden))

    @dense
    def finish(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """What follows the mixing, for each token by itself: both Tensor[..., width], as is the result."""
        hidden = hidden + self.self_attn.out_proj(mixed)
        return hidden + self.mlp(self.layer_norm2(hidden))


class Encoder(nn.Module):
    """The blocks of a tower, each recomputed in the backward pass where the config says so."""

    def __init__(self, blocks: Sequence[Block], config: Model) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)
        self.recompute = config.activation_checkpointing

    def forward(self, hidden: Tensor, attend: Attend, layout: Any = None, last: tuple[Any, ...] = ()) -> Tensor:
        """All blocks; the last one is called with ``last`` after the arguments of the others."""
        for block in self.layers[:-1]:
            hidden = self._run(block, hidden, attend, layout)
        return self._run(self.layers[-1], hidden, attend, layout, *last)

    def blocks(self) -> list[Block]:
        """The blocks in order."""
        return [block for block in self.layers if isinstance(block, Block)]

    def _run(self, block: nn.Module, *arguments: Any) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)  # nothing draws
        return block(*arguments)


def quick_gelu(hidden: Tensor) -> Tensor:
    """``x · sigmoid(1.702 x)``."""
    return _QuickGELU.apply(hidden)


class _QuickGELU(torch.autograd.Function):
    """``silu(1.702 x) / 1.702``: in its derivative both factors cancel, which autograd does not see."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        ctx.save_for_backward(hidden)
        return F.silu(hidden * 1.702, inplace=True).mul_(1 / 1.702)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (hidden,) = ctx.saved_tensors
        scaled = hidden * 1.702
        # in place, since fresh memory costs more than the arithmetic
        return torch.ops.aten.silu_backward.grad_input(grad, scaled, grad_input=scaled)
