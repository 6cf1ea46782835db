"""The second half of an MLP: C++, Triton and plain torch agree with the eager spec, and save the input alone."""

import pytest
import torch

from fgclip_fast.ops import native, reference
from fgclip_fast.ops.activation_linear import activation_linear
from tests.exactness import assert_as_exact_as_eager, assert_same_bits, with_gradients

GPU = torch.cuda.is_available()


@pytest.fixture(params=["c++", "triton", "torch"])
def device(request, monkeypatch):
    """The CPU, served by C++ and by torch; and what Triton serves: the GPU, or the CPU by Triton's interpreter."""
    assert native.why_not("activation_linear", "cpu") is None
    if request.param == "c++" or (request.param == "triton" and GPU):
        return torch.device("cuda" if request.param == "triton" else "cpu")
    monkeypatch.setitem(native.SERVERS["activation_linear"], "cpu", request.param)
    return torch.device("cpu")


def problem(shape, out=5, dtype=torch.float32, device="cpu"):
    random = torch.Generator().manual_seed(0)
    hidden, bias = 3 * torch.randn(shape, generator=random), torch.randn(shape[-1], generator=random)
    weight = torch.randn(out, shape[-1], generator=random)
    return hidden.to(device, dtype), bias.to(device), weight.to(device, dtype)


@pytest.mark.parametrize("kind", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (2, 3, 33), (70, 300)], ids=str)
def test_is_as_exact_as_eager(device, shape, dtype, kind, request):
    interpreted = request.node.callspec.params["device"] == "triton" and not GPU
    # Where a GPU rounds to bf16, Triton's interpreter truncates.
    truncation = torch.finfo(dtype).eps if interpreted and dtype == torch.bfloat16 else 0.0
    ops = activation_linear, reference.activation_linear
    inputs = problem(shape, dtype=dtype, device=device)
    assert_as_exact_as_eager(*ops, *inputs, kind=kind, floor=1e-5, rounding=1e-6 + truncation)


@pytest.mark.parametrize("kind", ["quick_gelu", "gelu"])
def test_far_values_pass_or_vanish(device, kind):
    hidden = torch.tensor([[-1e30, -300.0, -90.0, 0.0, 90.0, 300.0, 1e30]], device=device)
    bias, weight = torch.zeros(7, device=device), torch.eye(7, device=device)
    out, grad, *_ = with_gradients(activation_linear, hidden, bias, weight, kind=kind, upstream=torch.ones(1, 7))
    assert out.flatten().tolist() == pytest.approx([0, 0, 0, 0, 90, 300, 1e30], rel=1e-6, abs=1e-6)
    assert grad.flatten().tolist() == pytest.approx([0, 0, 0, 0.5, 1, 1, 1], abs=1e-6)


def test_saves_the_input_and_the_weights_alone(device):
    inputs = [x.requires_grad_() for x in problem((64, 32), device=device)]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        activation_linear(*inputs)
    assert sorted(saved) == sorted(x.numel() for x in inputs)


def test_leaves_its_inputs_and_the_gradient_from_above_as_they_were(device):
    inputs = problem((6, 32), device=device)
    before = [x.clone() for x in inputs]
    leaves = [x.requires_grad_() for x in inputs]
    out = activation_linear(*leaves)
    upstream = torch.ones_like(out)
    torch.autograd.grad(out, leaves, upstream)
    assert upstream.equal(torch.ones_like(out)) and all(a.equal(b) for a, b in zip(before, inputs, strict=True))


def test_the_same_bits_every_time():
    inputs = problem((999, 64), out=32)
    assert_same_bits(lambda: with_gradients(activation_linear, *inputs), threads=(2,))


def test_is_exact_in_fp64():
    inputs = [x.double().requires_grad_() for x in problem((3, 5))]
    for kind in ("quick_gelu", "gelu"):
        assert torch.autograd.gradcheck(lambda *a, kind=kind: activation_linear(*a, kind=kind), inputs)


@pytest.mark.parametrize(
    ("bias", "weight", "kind", "message"),
    [
        (8, (5, 9), "gelu", r"weight must be \[O, 8\] torch.float32 like hidden, got \[5, 9\] torch.float32"),
        (9, (5, 8), "gelu", r"bias must be \[8\], got \[9\]"),
        (8, (5, 8), "relu", "kind must be quick_gelu or gelu, got 'relu'"),
    ],
)
def test_error_names_the_argument(bias, weight, kind, message):
    with pytest.raises(ValueError, match=message):
        activation_linear(torch.ones(3, 8), torch.ones(bias), torch.ones(weight), kind)
