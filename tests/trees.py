"""Trees to test with, and inputs for attention over them."""

from itertools import accumulate

import torch

from fgclip_fast.ops import prefix_tree, reference, tree_attention
from fgclip_fast.ops.tree import EOS
from tests import exactness

BOS = 49406


def tree_of(short, long=(), **options):
    rows = [[BOS, *text, EOS] for text in [*short, *long]]
    offsets = torch.tensor([0, *accumulate(map(len, rows))])
    return prefix_tree(
        torch.tensor([t for row in rows for t in row], dtype=torch.int32), offsets, len(short), **options
    )


def random_texts(n, words, longest, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(0, longest + 1, (n,), generator=generator).tolist()
    return [torch.randint(0, words, (size,), generator=generator).tolist() for size in sizes]


def problem(tree, heads=2, head_dim=16, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(1)
    shape = len(tree.end), heads, head_dim
    return [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(4)]


def assert_as_exact_as_eager(inputs, tree, backend="auto"):
    """Compare tree attention with the dense mask; beside eager's error, the largest number may be rounded once more."""
    q, k, v, upstream = inputs
    exactness.assert_as_exact_as_eager(
        lambda q, k, v: tree_attention(q, k, v, tree, backend),
        lambda q, k, v: reference.tree_attention(q, k, v, tree.end),
        *(q, k, v),
        upstream=upstream,
        rounding=torch.finfo(q.dtype).eps / 2,
        floor=1e-6,
    )


TREES = {
    "none": lambda: tree_of([]),
    "one": lambda: tree_of([[1, 2, 3]]),
    "one, unfilled": lambda: tree_of([[1, 2, 3]], multiple=1),
    "empty strings": lambda: tree_of([[], []], [[]]),
    "duplicates": lambda: tree_of([[1, 2, 3]] * 5 + [[1, 2]], [[4, 4]] * 3),
    "difference in the first token": lambda: tree_of([[n, 1, 2, 3] for n in range(50)]),
    "difference in the last token": lambda: tree_of([[1, 2, 3, n] for n in range(200)], multiple=1),
    "one a prefix of another": lambda: tree_of([[1] * n for n in range(20)]),
    "only long, too long": lambda: tree_of([], random_texts(5, 3, 300)),
    "only short": lambda: tree_of(random_texts(100, 3, 30)),
    "wide": lambda: tree_of(random_texts(400, 3, 8), random_texts(30, 2, 70), multiple=1),
    "without sharing": lambda: tree_of(random_texts(20, 3, 30), random_texts(3, 2, 200), share=False),
}


SMALL_TREES = {
    "one tile, ragged": lambda: tree_of([[1, 2, 3], [1, 2], [5]], multiple=1),
    "spine longer than a block": lambda: tree_of([], [[1] * 150, [1] * 120 + [2] * 20], multiple=1),
    "a key that reaches far": lambda: tree_of([[n // 9, n, n] for n in range(190)], multiple=1),
}
