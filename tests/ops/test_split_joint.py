"""Parts of a joint product agree with the eager spec, whose bias has a gradient of its own."""

import pytest
import torch

from fgclip_fast.ops import native, reference
from fgclip_fast.ops.split_joint import split_joint
from tests.exactness import assert_as_exact_as_eager, assert_same_bits, with_gradients

GPU = torch.cuda.is_available()


@pytest.fixture(params=["triton", "torch"])
def device(request, monkeypatch):
    """What Triton serves, the GPU or the CPU by its interpreter; and the CPU, served by torch."""
    if request.param == "triton" and GPU:
        return torch.device("cuda")
    monkeypatch.setitem(native.SERVERS["split_joint"], "cpu", request.param)
    return torch.device("cpu")


def problem(shape, dtype=torch.float32, device="cpu"):
    random = torch.Generator().manual_seed(0)
    joint = torch.randn(*shape[:-1], 3 * shape[-1], generator=random).to(device, dtype)
    return joint, torch.randn(3 * shape[-1], generator=random).to(device, dtype)


def attended(split):
    """Mix the parts unevenly, so that each has another gradient; the bias is in the product, as a layer adds it."""

    def call(joint, bias):
        pieces = split(joint + bias.detach(), bias.chunk(3))
        return torch.cat([(i + 1) * piece.flatten() ** 2 for i, piece in enumerate(pieces)])

    return call


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (2, 3, 33), (70, 300)], ids=str)
def test_is_as_exact_as_eager(device, shape, dtype):
    inputs = problem(shape, dtype=dtype, device=device)
    assert_as_exact_as_eager(attended(split_joint), attended(reference.split_joint), *inputs, floor=1e-5, rounding=1e-6)


def test_gradients_of_any_strides(device):
    joint, bias = (x.requires_grad_() for x in problem((4, 6, 8), device=device))
    q, k, v = split_joint(joint, bias.chunk(3))
    (q.transpose(0, 1) @ k.transpose(0, 1).transpose(1, 2) @ v.transpose(0, 1)).sum().backward()
    own = [x.detach().clone().requires_grad_() for x in (joint, bias)]
    q, k, v = reference.split_joint(own[0], own[1].chunk(3))
    (q.transpose(0, 1) @ k.transpose(0, 1).transpose(1, 2) @ v.transpose(0, 1)).sum().backward()
    for mine, theirs in zip((joint, bias), own, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_parts_are_views_and_one_without_a_gradient_counts_as_zero(device):
    joint, bias = (x.requires_grad_() for x in problem((3, 4), device=device))
    q, _, _ = split_joint(joint, bias.chunk(3))
    assert q.data_ptr() == joint.data_ptr()
    q.sum().backward()
    wanted = torch.tensor([1.0] * 4 + [0.0] * 8, device=device)
    assert joint.grad.equal(wanted.expand(3, 12)) and bias.grad.equal(3 * wanted)


def test_a_frozen_bias_costs_no_gradient(device):
    joint, bias = problem((3, 4), device=device)
    split_joint(joint.requires_grad_(), bias.chunk(3))[1].sum().backward()
    assert bias.grad is None and joint.grad.sum() == 12


def test_the_same_bits_every_time():
    inputs = problem((999, 64))
    assert_same_bits(lambda: with_gradients(attended(split_joint), *inputs))


def test_error_names_the_argument():
    with pytest.raises(ValueError, match=r"split_joint: joint must be \[..., 3 \* W\], got \[2, 8\]"):
        split_joint(torch.ones(2, 8), torch.ones(6).chunk(3))
    with pytest.raises(ValueError, match=r"split_joint: biases must be three \[3\], got \[\[3\], \[3\]\]"):
        split_joint(torch.ones(2, 9), torch.ones(6).chunk(2))
