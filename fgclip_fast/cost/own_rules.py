"""Costs of this package's ops on a card, from the sizes of their arguments; one rule a kernel (``kernels/``).

What depends on values (which tokens are ancestors, which patches a box covers) is bounded by whole tiles and maps.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fgclip_fast.cost.rules import Cost, rule, size
from fgclip_fast.ops.tree import TILE, Tree

STRIPE = 2**30  # bytes of logits' gradients, at most, that a contrastive loss makes at a time
BACKWARD_BLOCK = 64  # queries of a program in the backward pass of tree attention


@rule("fgclip_fast::tree_attention")
def _tree_attention(arguments: Sequence[Any], result: Any) -> Cost:
    q, _, _, tree = arguments
    moved = size(arguments[:3]) + size(result) + size([tree[2], tree[5]])
    return Cost("attention", 2 * _tree_product(q, Tree(*tree)), moved, dtype=q.dtype)


@rule("fgclip_fast::tree_attention_backward")
def _tree_attention_backward(arguments: Sequence[Any], result: Any) -> Cost:
    """Logits are made again, so there are five products; far keys get fp32 rows that a second kernel adds up."""
    _, q, *_, tree = arguments
    lists = Tree(*tree)
    _, heads, width = q.shape
    parts = 2 * (TILE // BACKWARD_BLOCK) * len(lists.far_rows) * heads * width * torch.float32.itemsize
    moved = size(arguments[:6]) + size(result) + size([lists.end, lists.spine]) + 2 * parts
    return Cost("attention", 5 * _tree_product(q, lists), moved, launches=2, scratch=parts, dtype=q.dtype)


def _tree_product(q: Tensor, tree: Tree) -> int:
    """FLOPs of one product: each tile of queries with its spine and with itself."""
    tokens, heads, width = q.shape
    return 2 * heads * width * TILE * (tokens + len(tree.spine))


@rule("fgclip_fast::contrastive_loss")
def _contrastive_loss(arguments: Sequence[Any], result: Any) -> Cost:
    """One product for the log-sum-exps; for gradients the logits stripe by stripe again, and two products more."""
    image, _, _, _, budget, wanted = arguments
    pairs, width = image.shape
    return _contrastive(image, pairs, pairs, width, 4 if any(wanted) else 1, budget)


@rule("fgclip_fast::contrastive_loss_own_lse")
def _contrastive_loss_own_lse(arguments: Sequence[Any], result: Any) -> Cost:
    rows, columns, *_ = arguments
    return _contrastive(rows, len(rows), len(columns), rows.shape[1], 1)


@rule("fgclip_fast::contrastive_loss_own_gradient")
def _contrastive_loss_own_gradient(arguments: Sequence[Any], result: Any) -> Cost:
    rows, columns, *_ = arguments
    return _contrastive(rows, len(rows), len(columns), rows.shape[1], 2)


def _contrastive(rows: Tensor, B: int, N: int, D: int, products: int, budget: int = STRIPE // 2) -> Cost:
    """A product reads both sides. A stripe's gradient is written once and read by each product after the second.

    Of the sums of two such products the columns' are read and written once a stripe, in fp32.
    """
    gradient = B * N * rows.element_size() if products > 1 else 0
    scratch = min(gradient, max(budget, 128 * N * rows.element_size()))
    stripes = math.ceil(gradient / scratch) if scratch else 0
    moved = products * (B + N) * D * rows.element_size() + (products - 1) * gradient
    moved += 4 * (B + 2 * stripes * N) * D if products > 2 else 0
    return Cost("loss", products * 2 * B * N * D, moved, launches=45 + 4 * stripes, scratch=scratch, dtype=rows.dtype)


@rule("fgclip_fast::hard_negative_loss", "fgclip_fast::hard_negative_loss_backward")
def _hard_negative_loss(arguments: Sequence[Any], result: Any) -> Cost:
    """Each row is read once; around the kernel stand seven small ones that count the regions with a negative."""
    return Cost("loss", bytes=size(list(arguments)) + size(result), launches=8)


@rule("fgclip_fast::region_embedding")
def _region_embedding(arguments: Sequence[Any], result: Any) -> Cost:
    """The whole map is read, at most."""
    return Cost("elementwise", bytes=size(list(arguments)) + size(result))


@rule("fgclip_fast::region_embedding_backward")
def _region_embedding_backward(arguments: Sequence[Any], result: Any) -> Cost:
    return Cost("elementwise", bytes=size(list(arguments)) + size(result), launches=3)


@rule("fgclip_fast::add_layer_norm_backward")
def _add_layer_norm_backward(arguments: Sequence[Any], result: Any) -> Cost:
    """A second kernel adds up the column sums of up to 1,024 strips, which are small beside the rows."""
    return Cost("elementwise", bytes=size(list(arguments)) + size(result), launches=2)


@rule("fgclip_fast::join")
def _join(arguments: Sequence[Any], result: Any) -> Cost:
    """A second kernel adds up the column sums of the strips, which are small beside the rows."""
    return Cost("elementwise", bytes=size(list(arguments)) + size(result), launches=2)


@rule("fgclip_fast::activation_backward")
def _activation_backward(arguments: Sequence[Any], result: Any) -> Cost:
    """The gradient is read, and written in its place."""
    return Cost("elementwise", bytes=size(list(arguments)) + size(arguments[0]) + size(result), launches=2)
