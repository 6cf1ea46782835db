"""Who mixes the tokens of a block: each function takes queries, keys and values and returns the attended values.

A block does not know how its tokens are laid out; ``layout`` is whatever its function needs to know about that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from fgclip_fast.ops import Tree, tree_attention

Attend = Callable[[Tensor, Tensor, Tensor, Any], Tensor]


def full(q: Tensor, k: Tensor, v: Tensor, layout: None = None) -> Tensor:
    """Every query sees every key: Tensor[B, Nq, heads, d] and two Tensor[B, N, heads, d] -> Tensor[B, Nq, heads, d]."""
    return _scaled_dot_product(q, k, v, is_causal=False)


def causal(q: Tensor, k: Tensor, v: Tensor, layout: None = None) -> Tensor:
    """Rows of texts, padded at their ends: a token sees itself and those before it. Tensor[M, L, heads, d], thrice."""
    return _scaled_dot_product(q, k, v, is_causal=True)


class Packed(NamedTuple):
    """Layout of packed texts: their tree, and who attends over it (config.Model.attention)."""

    tree: Tree
    backend: str


def over_tree(q: Tensor, k: Tensor, v: Tensor, layout: Packed) -> Tensor:
    """Texts as one prefix tree: a token sees itself and its ancestors. Tensor[T, heads, d], thrice."""
    return tree_attention(q, k, v, *layout)


def _scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal).transpose(1, 2)
