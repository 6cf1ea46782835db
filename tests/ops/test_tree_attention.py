import pytest
import torch

from fgclip_fast.ops import tree_attention
from fgclip_fast.ops.tree_attention import BACKENDS, why_not
from tests.exactness import assert_same_bits, with_gradients
from tests.trees import (
    SMALL_TREES,
    TREES,
    assert_as_exact_as_eager,
    problem,
    random_texts,
    tree_of,
)


@pytest.mark.parametrize("name", TREES)
def test_agrees_with_the_dense_mask(name):
    tree = TREES[name]()
    assert_as_exact_as_eager(problem(tree), tree)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_is_as_exact_as_eager(dtype):
    tree = TREES["wide"]()
    assert_as_exact_as_eager(problem(tree, dtype=dtype), tree)


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
    tree = TREES["wide"]()
    q, k, v, upstream = problem(tree)
    assert_same_bits(lambda: with_gradients(tree_attention, q, k, v, tree, upstream=upstream), threads=[2])


def test_errors_name_the_argument():
    tree = tree_of([[1, 2]])
    q, k, v, _ = problem(tree)
    with pytest.raises(ValueError, match=r"q must be \[T, heads, head_dim\] with T = 64, got \[63, 2, 16\]"):
        tree_attention(q[1:], k[1:], v[1:], tree)
    with pytest.raises(ValueError, match=r"v must be like q, .* got \[64, 2, 8\]"):
        tree_attention(q, k, v[..., :8], tree)
    with pytest.raises(ValueError, match="k must be like q"):
        tree_attention(q, k.double(), v, tree)
    with pytest.raises(ValueError, match="backend 'flash' does not run here"):
        tree_attention(q, k, v, tree, "flash")
    with pytest.raises(ValueError, match=r"backend must be auto or one of triton, .*, got 'fast'"):
        tree_attention(q, k, v, tree, "fast")


# The Triton kernels: in the interpreter, or on a GPU where there is one.


@pytest.mark.parametrize("name", SMALL_TREES)
def test_kernel_agrees_with_the_dense_mask(name, device):
    tree = SMALL_TREES[name]().to(device)
    assert (len(tree.far_rows) > 0) == (name == "a key that reaches far")
    assert_as_exact_as_eager(problem(tree, heads=1, device=device), tree, "triton")


@pytest.mark.parametrize(
    ("head_dim", "dtype", "name"),
    [
        (24, torch.float32, "one tile, ragged"),
        (40, torch.float16, "a key that reaches far"),
        (64, torch.float16, "one tile, ragged"),
        (128, torch.float32, "one tile, ragged"),
    ],
    ids=str,
)
def test_kernel_takes_head_widths_and_half_precision(head_dim, dtype, name, device):
    tree = SMALL_TREES[name]().to(device)
    assert_as_exact_as_eager(problem(tree, 2, head_dim, dtype, device), tree, "triton")


def test_kernel_reads_strided_inputs(device):
    tree = SMALL_TREES["one tile, ragged"]().to(device)
    qkv = torch.randn(len(tree.end), 3, 2, 16, generator=torch.Generator().manual_seed(0)).to(device)
    inputs = [*qkv.unbind(1), torch.ones(1, device=device).expand(len(tree.end), 2, 16)]
    assert_as_exact_as_eager(inputs, tree, "triton")


def test_kernel_is_a_proper_custom_op(device):
    tree = SMALL_TREES["one tile, ragged"]().to(device)
    inputs = [x.requires_grad_() for x in problem(tree, device=device)[:3]]
    torch.library.opcheck(torch.ops.fgclip_fast.tree_attention, (*inputs, list(tree)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", TREES)
def test_kernel_on_a_gpu(name, dtype):
    tree = TREES[name]().to("cuda")
    assert_as_exact_as_eager(problem(tree, 8, 64, dtype, "cuda"), tree, "triton")


def test_every_backend_says_why_it_does_not_run_here():
    for backend in BACKENDS:
        assert why_not(backend, "cpu", torch.float32, 64) is None or len(why_not(backend, "cpu")) > 10
    assert why_not("sdpa", "cpu") is None
