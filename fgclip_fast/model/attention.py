"""Mix the tokens of a block: each function takes queries, keys and values and returns the attended values.

A block does not know how its tokens are laid out; the function that it is given does.
"""

from collections.abc import Callable

from torch import Tensor

from fgclip_fast.ops import Tree, dense_attention, tree_attention

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every query sees every key: Tensor[B, Nq, heads, d] and two Tensor[B, N, heads, d] -> Tensor[B, Nq, heads, d]."""
    return _scaled_dot_product(q, k, v, is_causal=False)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Rows of texts, padded at their ends: a token sees itself and those before it. Tensor[M, L, heads, d], thrice."""
    return _scaled_dot_product(q, k, v, is_causal=True)


def over_tree(tree: Tree, backend: str) -> Attend:
    """Texts as one prefix tree: a token sees itself and its ancestors. Tensor[T, heads, d], thrice.

    Args:
        tree: of T tokens.
        backend: name of the attention that serves it, or "auto" (config.Model.attention).
    """
    return lambda q, k, v: tree_attention(q, k, v, tree, backend)


def _scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return dense_attention(q, k, v, is_causal=is_causal).transpose(1, 2)
