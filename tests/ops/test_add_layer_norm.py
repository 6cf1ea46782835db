"""Residual addition and LayerNorm: C++, Triton and plain torch agree with the eager spec, and hold at the edges."""

import pytest
import torch

from fgclip_fast.ops import native, reference
from fgclip_fast.ops.add_layer_norm import add_layer_norm
from tests.exactness import assert_as_exact_as_eager, assert_same_bits, with_gradients

GPU = torch.cuda.is_available()
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=["c++", "triton", "torch"])
def device(request, monkeypatch):
    """The CPU, served by C++ and by torch; and what Triton serves: the GPU, or the CPU by Triton's interpreter."""
    assert native.why_not("add_layer_norm", "cpu") is None
    if request.param == "c++" or (request.param == "triton" and GPU):
        return torch.device("cuda" if request.param == "triton" else "cpu")
    monkeypatch.setitem(native.SERVERS["add_layer_norm"], "cpu", request.param)
    return torch.device("cpu")


def rows_of(shape, stream=torch.float32, products=torch.float32, device="cpu", offset=0.0):
    """A stream, an update, and the update's bias and LayerNorm's weight and bias, of the last size."""
    random = torch.Generator().manual_seed(0)
    residual, update = (torch.randn(shape, generator=random) + offset for _ in range(2))
    parameters = (torch.randn(shape[-1], generator=random).to(device) for _ in range(3))
    return residual.to(device, stream), update.to(device, products), *parameters


def joined(function):
    """Both outputs of an op as one row of numbers, in fp64: the harness compares one tensor."""

    def call(*arguments, **options):
        return torch.cat([out.flatten().double() for out in function(*arguments, **options)])

    return call


OPS = joined(add_layer_norm), joined(reference.add_layer_norm)


@pytest.mark.parametrize("products", DTYPES, ids=str)
@pytest.mark.parametrize("stream", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (2, 3, 33), (70, 512)], ids=str)
def test_is_as_exact_as_eager(device, shape, stream, products, request):
    inputs = rows_of(shape, stream, products, device)
    interpreted = request.node.callspec.params["device"] == "triton" and not GPU
    # Where a GPU rounds to bf16, Triton's interpreter truncates.
    truncation = torch.finfo(torch.bfloat16).eps if interpreted and torch.bfloat16 in (stream, products) else 0.0
    assert_as_exact_as_eager(*OPS, *inputs, floor=1e-5, rounding=1e-6 + truncation, eps=1e-5)


def test_without_an_update_the_stream_stays_itself(device):
    residual, _, _, weight, bias = rows_of((5, 33), device=device)
    total, normed = add_layer_norm(residual, None, None, weight, bias)
    assert total.data_ptr() == residual.data_ptr()
    torch.testing.assert_close(normed, torch.nn.functional.layer_norm(residual, (33,), weight, bias))
    assert_as_exact_as_eager(*OPS, residual, None, None, weight, bias, floor=1e-5)


def test_an_update_needs_no_bias(device):
    residual, update, _, weight, bias = rows_of((5, 33), device=device)
    assert_as_exact_as_eager(*OPS, residual, update, None, weight, bias, floor=1e-5)


def test_a_large_mean_costs_no_digits(device):
    assert_as_exact_as_eager(*OPS, *rows_of((4, 96), device=device, offset=300.0), floor=1e-5, rounding=1e-6)


def test_takes_tensors_of_any_strides(device):
    residual, update, *parameters = rows_of((6, 9, 32), device=device)
    turned = residual.transpose(0, 1), update.transpose(0, 1)
    plain = with_gradients(OPS[0], *(x.contiguous() for x in turned), *parameters)
    strided = with_gradients(OPS[0], *turned, *parameters)
    for mine, expected in zip(strided, plain, strict=True):
        assert mine.equal(expected)


def test_one_output_alone_has_its_gradient(device):
    inputs = rows_of((7, 16), device=device)
    for part in (0, 1):
        functions = (lambda *a, f=f, part=part: f(*a)[part] for f in (add_layer_norm, reference.add_layer_norm))
        mine, peer = (_gradients(function, inputs) for function in functions)
        for ours, theirs in zip(mine, peer, strict=True):
            torch.testing.assert_close(ours, torch.zeros_like(ours) if theirs is None else theirs)


def _gradients(function, inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    grads = torch.autograd.grad(out.square().sum(), leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]


def test_the_same_bits_every_time():
    inputs = rows_of((999, 64))
    assert_same_bits(lambda: with_gradients(OPS[0], *inputs))


def test_is_exact_in_fp64():
    inputs = [x.requires_grad_() for x in rows_of((3, 5), torch.float64, torch.float64)]
    inputs[2:] = [x.detach().double().requires_grad_() for x in inputs[2:]]
    assert torch.autograd.gradcheck(add_layer_norm, inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"update": (3, 9)}, r"update must be like residual, \[3, 8\] on cpu, got \[3, 9\] on cpu"),
        ({"update_bias": (9,)}, r"update_bias must be \[8\] on cpu, got \[9\] on cpu"),
        ({"weight": (1, 8)}, r"weight must be \[8\] on cpu, got \[1, 8\] on cpu"),
        ({"bias": ()}, r"bias must be \[8\] on cpu, got \[\] on cpu"),
        ({"residual": ()}, r"residual must be \[..., W\] of floats, got \[\] torch.float32"),
        ({"update": None}, "update_bias belongs to an update, got it without one"),
    ],
    ids=str,
)
def test_error_names_the_argument(change, message):
    shapes = {"residual": (3, 8), "update": (3, 8), "update_bias": (8,), "weight": (8,), "bias": (8,)} | change
    with pytest.raises(ValueError, match=message):
        add_layer_norm(*(None if shape is None else torch.ones(shape) for shape in shapes.values()))
