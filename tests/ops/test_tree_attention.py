from itertools import accumulate

import pytest
import torch

from fgclip_fast.ops import reference
from fgclip_fast.ops.prefix_tree import EOS, prefix_tree
from fgclip_fast.ops.tree_attention import tree_attention

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


def with_gradients(attention, q, k, v, grad, *rest, dtype=None):
    q, k, v = (x.to(dtype or x.dtype).detach().requires_grad_() for x in (q, k, v))
    out = attention(q, k, v, *rest)
    return out, *torch.autograd.grad(out, (q, k, v), grad.to(out.dtype))


def error(x, truth):
    return (x.double() - truth.double()).abs().max().item() if x.numel() else 0.0


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


@pytest.mark.parametrize("name", TREES)
def test_agrees_with_the_dense_mask(name):
    tree = TREES[name]()
    inputs = problem(tree)
    exact = with_gradients(reference.tree_attention, *inputs, tree.end, dtype=torch.float64)
    eager = with_gradients(reference.tree_attention, *inputs, tree.end)
    ours = with_gradients(tree_attention, *inputs, tree)
    for mine, peer, truth in zip(ours, eager, exact, strict=True):
        assert error(mine, truth) <= 2 * error(peer, truth) + 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_is_as_exact_as_eager(dtype):
    tree = TREES["wide"]()
    inputs = problem(tree, dtype=dtype)
    exact = with_gradients(reference.tree_attention, *inputs, tree.end, dtype=torch.float64)
    eager = with_gradients(reference.tree_attention, *inputs, tree.end)
    ours = with_gradients(tree_attention, *inputs, tree)
    for mine, peer, truth in zip(ours, eager, exact, strict=True):
        assert mine.dtype == dtype
        rounding = torch.finfo(dtype).eps / 2 * truth.abs().max()  # of the largest number
        assert error(mine, truth) <= 2 * error(peer, truth) + rounding


def test_each_text_attends_as_if_alone():
    texts = random_texts(40, 3, 12)
    tree = tree_of(texts)
    q, k, v, _ = problem(tree)
    out = tree_attention(q, k, v, tree)
    for node in tree.pooled.tolist():
        path = [j for j in range(node + 1) if tree.end[j] > node]
        alone = torch.nn.functional.scaled_dot_product_attention(
            *(x[path].transpose(0, 1) for x in (q, k, v)), is_causal=True
        )
        torch.testing.assert_close(out[path], alone.transpose(0, 1), rtol=1e-5, atol=1e-6)


def test_gradients_are_the_same_bits_in_20_repeats():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tree = TREES["wide"]()
        inputs = problem(tree)
        first = with_gradients(tree_attention, *inputs, tree)
        for _ in range(20):
            again = with_gradients(tree_attention, *inputs, tree)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    finally:
        torch.set_num_threads(threads)


def test_errors_name_the_argument():
    tree = tree_of([[1, 2]])
    q, k, v, _ = problem(tree)
    with pytest.raises(ValueError, match=r"q must be \[T, heads, head_dim\] with T = 256, got \[255, 2, 16\]"):
        tree_attention(q[1:], k[1:], v[1:], tree)
    with pytest.raises(ValueError, match=r"v must be like q, .* got \[256, 2, 8\]"):
        tree_attention(q, k, v[..., :8], tree)
    with pytest.raises(ValueError, match="k must be like q"):
        tree_attention(q, k.double(), v, tree)
