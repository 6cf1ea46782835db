"""Products with a layer's weights agree with torch's linear layer, whichever library multiplies."""

import pytest
import torch
import torch.nn.functional as F

from fgclip_fast.ops import linear as module
from fgclip_fast.ops.linear import add_product, linear, product, write_product
from tests.exactness import assert_as_exact_as_eager, assert_same_bits, with_gradients

SHAPES = [((1, 1), 1), ((7, 33), 5), ((2, 3, 16), 48), ((130, 64), 9)]
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


@pytest.fixture(params=[False, True], ids=["mkl", "onednn"], autouse=True)
def library(request, monkeypatch):
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(module, "onednn_is_faster", lambda: request.param)
    return request.param


def problem(shape, out, dtype=torch.float32):
    random = torch.Generator().manual_seed(0)
    sizes = shape, (out, shape[-1]), (out,)
    return [torch.randn(size, generator=random, dtype=torch.float64).to(dtype) for size in sizes]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "out"), SHAPES, ids=str)
def test_is_as_exact_as_eager(shape, out, dtype):
    assert_as_exact_as_eager(linear, F.linear, *problem(shape, out, dtype), floor=1e-6, rounding=1e-6)


@pytest.mark.parametrize("shape", [(0, 8), (3, 0)], ids=str)
def test_empty_inputs(shape):
    rows, weight, bias = (x.requires_grad_() for x in problem(shape, 4))
    out = linear(rows, weight, bias)
    out.sum().backward()
    torch.testing.assert_close(out, F.linear(rows, weight, bias))
    assert rows.grad.shape == rows.shape and not weight.grad.any()


def test_strides_do_not_matter():
    rows, weight, bias = problem((12, 20), 6)
    expected = F.linear(rows, weight, bias)
    for other in (rows.T.contiguous().T, rows.repeat(1, 2)[:, :20], rows.repeat_interleave(2, 0)[::2]):
        torch.testing.assert_close(product(other, weight, bias), expected)
    for other in (weight.T.contiguous().T, weight.repeat(1, 2)[:, :20], weight.repeat_interleave(2, 1)[:, ::2]):
        torch.testing.assert_close(product(rows, other, bias), expected)
    torch.testing.assert_close(product(rows[:1].expand(5, -1), weight), expected[:1].expand(5, -1) - bias)


def test_a_frozen_weight_gets_no_gradient():
    rows, weight, bias = problem((4, 8), 3)
    rows.requires_grad_()
    linear(rows, weight, bias).sum().backward()
    torch.testing.assert_close(rows.grad, weight.sum(0).expand(4, -1))
    assert weight.grad is None and bias.grad is None


def test_add_product_adds_in_place():
    rows, weight, _ = problem((9, 16), 5)
    total = torch.ones(9, 5)
    assert add_product(total, rows, weight) is total
    torch.testing.assert_close(total, 1 + rows @ weight.T)


def test_write_product_fills_rows_of_a_larger_tensor():
    rows, weight, _ = problem((9, 16), 5)
    whole = torch.zeros(20, 5)
    assert write_product(whole[3:12], rows, weight).data_ptr() == whole[3].data_ptr()
    torch.testing.assert_close(whole[3:12], rows @ weight.T)
    assert not whole[:3].any() and not whole[12:].any()


def test_gives_the_same_bits_twice():
    assert_same_bits(lambda: with_gradients(linear, *problem((70, 96), 33)), threads=[2])


def test_autocast_rounds_as_torch_does():
    rows, weight, bias = problem((5, 16), 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(rows, weight, bias).dtype == torch.bfloat16


def test_an_exported_program_holds_torchs_own_product():
    class Layer(torch.nn.Module):
        def forward(self, rows, weight):
            return linear(rows, weight)

    exported = torch.export.export(Layer(), tuple(problem((4, 8), 3)[:2]))
    assert "mkldnn" not in str(exported.graph)


@pytest.mark.parametrize(
    ("capability", "name", "faster"),
    [("AVX512", "AuthenticAMD", True), ("AVX512", "GenuineIntel", False), ("AVX2", "AuthenticAMD", False)],
)
def test_the_processor_chooses_the_library(monkeypatch, tmp_path, capability, name, faster):
    described = tmp_path / "cpuinfo"
    described.write_text(f"vendor_id\t: {name}\n")
    monkeypatch.undo()  # the choice that the fixture made
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(module, "Path", lambda _: described)
    assert module.onednn_is_faster.__wrapped__() is (faster and torch.backends.mkldnn.is_available())
