"""The linear layer over a normalised sum agrees with the eager spec, and saves one tensor of its size."""

import pytest
import torch

from fgclip_fast.ops import reference
from fgclip_fast.ops.norm_linear import norm_linear
from tests.exactness import assert_as_exact_as_eager, assert_same_bits, with_gradients
from tests.ops.test_add_layer_norm import joined, rows_of

OPS = (
    joined(lambda *a: norm_linear(*a[:5], [a[5]], [a[6]])),
    joined(lambda *a: reference.norm_linear(*a[:5], [a[5]], [a[6]])),
)


def problem(shape, out=7, stream=torch.float32, products=torch.float32, device="cpu"):
    random = torch.Generator().manual_seed(2)
    layer = torch.randn(out, shape[-1], generator=random), torch.randn(out, generator=random)
    return *rows_of(shape, stream, products, device), *(x.to(device, products) for x in layer)


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stream", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (2, 3, 33), (70, 96)], ids=str)
def test_is_as_exact_as_eager(device, shape, stream, products):
    inputs = problem(shape, stream=stream, products=products, device=device)
    assert_as_exact_as_eager(*OPS, *inputs, floor=1e-5, rounding=1e-6)


@pytest.mark.parametrize("absent", [{"update", "update_bias"}, {"update_bias"}, {"bias"}], ids=sorted)
def test_parts_may_be_absent(device, absent):
    names = ("residual", "update", "update_bias", "norm_weight", "norm_bias", "weight", "bias")
    inputs = zip(names, problem((5, 33), device=device), strict=True)
    assert_as_exact_as_eager(*OPS, *(None if name in absent else x for name, x in inputs), floor=1e-5, rounding=1e-6)


def test_a_frozen_layer_costs_no_gradient_and_the_others_keep_theirs(device):
    inputs = problem((5, 16), device=device)
    leaves = [x.clone().requires_grad_(i not in (5, 6)) for i, x in enumerate(inputs)]
    OPS[0](*leaves).sum().backward()
    full = [x.clone().requires_grad_() for x in inputs]
    OPS[0](*full).sum().backward()
    assert leaves[5].grad is None and leaves[6].grad is None
    assert all(mine.grad.equal(theirs.grad) for mine, theirs in zip(leaves[:5], full, strict=False))


def test_several_layers_read_one_normalised_sum(device):
    *inputs, weight, bias = problem((9, 32), out=12, device=device)
    together = with_gradients(OPS[0], *inputs, weight, bias)

    def apart(*a):
        total, *products = norm_linear(*a[:5], a[5].split(4), a[6].split(4))
        return torch.cat([total.flatten(), torch.cat(products, dim=-1).flatten()]).double()

    for mine, expected in zip(with_gradients(apart, *inputs, weight, bias), together, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)  # products of other shapes, in fp32


def test_saves_the_sum_and_the_weights_alone(device):
    residual, update, *others = (x.requires_grad_() for x in problem((64, 32), device=device))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        OPS[0](residual, update, *others)
    assert sum(size for size in saved if size >= residual.numel()) == residual.numel()


def test_the_same_bits_every_time():
    inputs = problem((999, 64), out=96)
    assert_same_bits(lambda: with_gradients(OPS[0], *inputs), threads=(2,))


def test_error_names_the_argument():
    *others, _, bias = problem((3, 8))
    with pytest.raises(ValueError, match=r"norm_linear: weights must be \[O, 8\], got \[7, 9\]"):
        norm_linear(*others, [torch.ones(7, 9)], [bias])
