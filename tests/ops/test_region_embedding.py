import os
import subprocess
import sys
from unittest import mock

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import roi_align

from fgclip_fast.ops import native, reference, region_embedding
from tests.exactness import assert_as_exact_as_eager, assert_same_bits, with_gradients
from tests.op_module import op_module

module = op_module("region_embedding")
OP = torch.ops.fgclip_fast.region_embedding.default
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="Triton's interpreter runs where there is no GPU")
OP_BACKWARD = torch.ops.fgclip_fast.region_embedding_backward.default


@pytest.fixture(params=["native", "triton"])
def device(request, device, monkeypatch):
    """The GPU, or the CPU where there is none; served by the extension, then by Triton (on a CPU, its interpreter)."""
    if request.param == "triton":
        monkeypatch.setitem(native.SERVERS["region_embedding"], device.type, "triton")
    return device


def problem(sizes=(2, 0, 3), grid=(5, 7), C=33, dtype=torch.float32, device="cpu", reach=0.3, seed=0):
    """Tokens with a class token left out, boxes that leave the image by up to ``reach``, in mixed order, a grid."""
    random = torch.Generator().manual_seed(seed)
    B, R, (H, W) = len(sizes), sum(sizes), grid
    tokens = torch.randn(B, 1 + H * W, C, generator=random).to(device, dtype)[:, 1:].requires_grad_()
    corners = torch.rand(R, 2, 2, generator=random) * (1 + 2 * reach) - reach
    boxes = corners.sort(1).values.reshape(R, 4)
    index = torch.arange(B).repeat_interleave(torch.tensor(sizes, dtype=torch.int64))
    return tokens, boxes.to(device), index[torch.randperm(R, generator=random)].to(device), grid


def torchvision(tokens: Tensor, boxes: Tensor, image_index: Tensor, grid: tuple[int, int]) -> Tensor:
    (H, W), (B, _, C) = grid, tokens.shape
    cells = boxes * torch.tensor([W, H, W, H])
    maps = tokens.transpose(1, 2).reshape(B, C, H, W)
    return roi_align(maps, torch.cat([image_index[:, None], cells], 1), (1, 1), 1.0, -1, True).flatten(1)


def with_gradient(function, tokens, boxes, image_index, grid):
    """Output and the gradient of the tokens."""
    return with_gradients(function, tokens, boxes=boxes, image_index=image_index, grid=grid)


def test_the_native_kernels_serve_here():
    assert native.why_not("region_embedding", "cpu") is None


@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    grid=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    C=st.sampled_from([1, 33, 64, 130]),
    reach=st.sampled_from([0.0, 0.3, 3.0]),
    rounded=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=60, deadline=None)
def test_equals_torchvision(sizes, grid, C, reach, rounded, seed):
    assert_equals_torchvision(sizes, grid, C, reach, rounded, seed)


@NO_GPU
@pytest.mark.parametrize("rounded", [False, True], ids=["anywhere", "rounded"])
def test_triton_equals_torchvision(rounded, monkeypatch):
    monkeypatch.setitem(native.SERVERS["region_embedding"], "cpu", "triton")
    assert_equals_torchvision([9, 0, 20], (3, 17), 33, 0.3, rounded, seed=0)


def assert_equals_torchvision(sizes, grid, C, reach, rounded, seed):
    tokens, boxes, image_index, grid = problem(sizes, grid, C, reach=reach, seed=seed)
    if rounded:  # sides of whole cells: the last bit decides on the number of samples
        boxes = (boxes * torch.tensor(grid * 2).flip(0)).round() / torch.tensor(grid * 2).flip(0)
    peer = with_gradient(torchvision, tokens, boxes, image_index, grid)
    for function in (region_embedding, reference.region_embedding):
        for mine, other in zip(with_gradient(function, tokens, boxes, image_index, grid), peer, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("box", [(-40, -30, 50, 60), (0.5, 0.5, 0.501, 0.502), (2, 2, 3, 3), (-0.04, 0, 0, 1)], ids=str)
@pytest.mark.parametrize("server", ["native", pytest.param("triton", marks=NO_GPU)])
def test_equals_torchvision_for_huge_tiny_and_outer_boxes(box, server, monkeypatch):
    monkeypatch.setitem(native.SERVERS["region_embedding"], "cpu", server)
    tokens, _, _, grid = problem([1], (14, 9))
    boxes, image_index = torch.tensor([box], dtype=torch.float32), torch.tensor([0])
    mine = region_embedding(tokens, boxes, image_index, grid)
    torch.testing.assert_close(mine, torchvision(tokens, boxes, image_index, grid), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("C", [1, 33, 512])
@pytest.mark.parametrize("sizes", [[0], [1], [1, 0, 11]], ids=str)
def test_is_as_exact_as_eager(device, sizes, C, dtype, request):
    interpreted = request.node.callspec.params["device"] == "triton" and device.type == "cpu"
    # Where a GPU rounds to bf16, Triton's interpreter truncates.
    rounding = torch.finfo(dtype).eps if interpreted and dtype == torch.bfloat16 else 0.0
    tokens, boxes, image_index, grid = problem(sizes, C=C, dtype=dtype, device=device)
    ways, where = (region_embedding, reference.region_embedding), {"boxes": boxes, "image_index": image_index}
    assert_as_exact_as_eager(
        *ways, tokens, **where, grid=grid, floor=1e-6, rounding=rounding
    )  # the floor: fp32 rounding of a sum


@pytest.mark.parametrize("function", [region_embedding, reference.region_embedding], ids=["native", "reference"])
@pytest.mark.parametrize(
    "box", [(0.2, 0.2, 0.2, 0.9), (0.9, 0.1, 0.2, 0.5), (0.9, 0.5, 0.2, 0.1), (2, 2, 3, 3)], ids=str
)
def test_a_box_without_area_inverted_or_outside_gives_zero(function, device, box):
    tokens, _, _, grid = problem([1], device=device)
    box, first = torch.tensor([box], dtype=torch.float32, device=device), torch.tensor([0], device=device)
    out, grad = with_gradient(function, tokens, box, first, grid)
    assert not out.any() and not grad.any()


def test_of_constant_tokens_is_that_constant(device):
    tokens, boxes, image_index, grid = problem(reach=0.0, device=device)
    out = region_embedding(torch.ones_like(tokens), boxes, image_index, grid)
    torch.testing.assert_close(out, torch.ones_like(out))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_half_precision_number_passes_unchanged(device, dtype, request):
    everything = torch.arange(-(2**15), 2**15, dtype=torch.int16, device=device).view(dtype)
    interpreted = request.node.callspec.params["device"] == "triton" and device.type == "cpu"
    if interpreted and dtype == torch.bfloat16:  # the interpreter misreads its subnormal numbers; a GPU does not
        everything = everything[~(everything.abs() < torch.finfo(dtype).tiny)]
    everything = everything[:: 13 if interpreted else 1]  # a second for each 8,000 there
    tokens = torch.cat([everything, everything[:3]]).view(1, 1, -1)  # a few beyond whole vectors
    whole, first = torch.tensor([[0.0, 0, 1, 1]], device=device), torch.tensor([0], device=device)
    out = region_embedding(tokens, whole, first, (1, 1))
    torch.testing.assert_close(out, tokens[0], rtol=0, atol=0, equal_nan=True)


def test_commutes_with_a_projection(device):
    tokens, boxes, image_index, grid = problem(device=device)
    weight = torch.randn(33, 8, device=device)
    before = region_embedding(tokens @ weight, boxes, image_index, grid)
    torch.testing.assert_close(
        region_embedding(tokens, boxes, image_index, grid) @ weight, before, rtol=1e-5, atol=1e-5
    )


def test_reads_views_where_they_are(device):
    tokens, boxes, image_index, grid = problem(device=device)
    expected = region_embedding(tokens.contiguous(), boxes, image_index, grid)
    transposed = tokens.transpose(1, 2).contiguous().transpose(1, 2)  # channels not adjacent: copied
    strided = torch.cat([tokens, tokens], 2)[:, :, :33]
    for view in (tokens, transposed, strided):
        assert not view.is_contiguous()
        assert torch.equal(region_embedding(view, boxes, image_index, grid), expected)
    assert torch.equal(region_embedding(tokens, boxes.t().contiguous().t(), image_index, grid), expected)


def test_gradcheck_of_the_reference():
    tokens, boxes, image_index, grid = problem([1, 2], (3, 2), C=2)
    tokens = tokens.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: region_embedding(t, boxes, image_index, grid), tokens)


def test_gradcheck_of_the_kernels(device, request):
    interpreted = request.node.callspec.params["device"] == "triton" and device.type == "cpu"
    sizes = ([2], (2, 2), 1) if interpreted else ([1, 2], (3, 2), 2)
    tokens, boxes, image_index, grid = problem(*sizes, device=device)
    tokens = tokens.detach().requires_grad_()
    linear = {"eps": 1.0, "atol": 1e-5, "rtol": 1e-5, "nondet_tol": 0.0}  # so a long step is exact, in fp32 too
    with pytest.warns(UserWarning, match="double precision"):
        assert torch.autograd.gradcheck(lambda t: region_embedding(t, boxes, image_index, grid), tokens, **linear)


def test_a_second_derivative_raises():
    tokens, boxes, image_index, grid = problem()
    (grad,) = torch.autograd.grad(
        region_embedding(tokens, boxes, image_index, grid).square().sum(), tokens, create_graph=True
    )
    with pytest.raises(RuntimeError):
        grad.sum().backward()


@pytest.mark.parametrize("sizes", [[0], [1, 3]], ids=str)
def test_opcheck(device, sizes):
    tokens, boxes, image_index, grid = problem(sizes, device=device)
    torch.library.opcheck(OP, (tokens, boxes, image_index, *grid))
    torch.library.opcheck(
        OP_BACKWARD, (torch.randn(len(boxes), 33, device=device), boxes, image_index, len(sizes), *grid)
    )


def test_compiles_into_one_graph_for_any_number_of_boxes(device):
    compiled = torch.compile(region_embedding, fullgraph=True, dynamic=True, backend="aot_eager")
    for sizes in ([2, 0, 3], [1, 5, 5]):
        inputs = problem(sizes, device=device)
        results = [with_gradient(function, *inputs) for function in (compiled, region_embedding)]
        assert all(map(torch.equal, *results))


def test_under_autocast_keeps_its_dtype(device):
    inputs = problem(device=device)
    expected = region_embedding(*inputs)
    with torch.autocast(device.type, torch.bfloat16):
        out = region_embedding(*inputs)
    assert out.dtype == torch.float32 and torch.equal(out, expected)


def test_same_bits_whenever_and_on_any_number_of_threads(device, request):
    interpreted = request.node.callspec.params["device"] == "triton" and device.type == "cpu"
    size = {"sizes": [3, 0, 2], "grid": (3, 4), "C": 33} if interpreted else {"sizes": [3, 0, 40, 1], "grid": (14, 14)}
    inputs = problem(**{"C": 200} | size, device=device)
    assert_same_bits(lambda: with_gradient(region_embedding, *inputs), threads=[1] if interpreted else [1, 2, 3, 4])


def test_no_box_gives_no_row_and_a_zero_gradient(device):
    out, grad = with_gradient(region_embedding, *problem([0, 0], device=device))
    assert out.shape == (0, 33) and grad.shape == (2, 35, 33) and not grad.any()


BAD = {
    "tokens must be .* got .3, 36, 33.*leave out a class token": lambda t, b, i, g: (t.new_zeros(3, 36, 33), b, i, g),
    r"boxes must be \[R, 4\] xyxy, got \[5, 5\]": lambda t, b, i, g: (t, b.new_zeros(5, 5), i, g),
    r"image_index must be \[R\] = \[5\], got \[4\]": lambda t, b, i, g: (t, b, i[:4], g),
    "tokens must be fp32, bf16, fp16 or fp64, got torch.int32": lambda t, b, i, g: (t.int(), b, i, g),
    "boxes must be fp32, got torch.bfloat16": lambda t, b, i, g: (t, b.bfloat16(), i, g),
    "image_index must be int64, got torch.int32": lambda t, b, i, g: (t, b, i.int(), g),
    "boxes must be on the device of tokens, .*, got meta": lambda t, b, i, g: (t, b.to("meta"), i, g),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_error_names_the_argument(message, device):
    with pytest.raises(ValueError, match="region_embedding: " + message):
        region_embedding(*BAD[message](*problem(device=device)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["native", "reference"])
def test_values_out_of_range_are_refused(device, monkeypatch, dtype):
    monkeypatch.setenv("FGCLIP_CHECK", "1")  # asks for it on a GPU; a CPU always looks
    tokens, boxes, image_index, grid = problem(device=device, dtype=dtype)
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=rf"image_index must be in \[0, B\) = \[0, 3\), got {wrong}"):
            region_embedding(tokens, boxes, image_index.clone().fill_(wrong), grid)
    boxes[1, 2] = float("nan")
    with pytest.raises(ValueError, match="boxes must be finite, got nan"):
        region_embedding(tokens, boxes, image_index, grid)


class Launching(TorchDispatchMode):
    """Fake CUDA tensors end at the op; this goes on to its body, as a GPU's dispatch does."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        bodies = {OP: module._forward._init_fn, OP_BACKWARD: module._backward._init_fn}
        return bodies.get(function, function)(*args, **(kwargs or {}))


def test_launches_are_reached_with_the_addresses_strides_device_and_stream(monkeypatch):
    extension = mock.Mock()
    monkeypatch.setattr(native, "serves", lambda op, device: True)
    monkeypatch.setattr(native, "server", lambda op, device_type: "native")
    monkeypatch.setattr("fgclip_fast._native", extension)
    monkeypatch.setattr(native, "address", lambda tensor: tuple(tensor.shape))
    monkeypatch.setattr(native, "row_address", lambda tensor: (tuple(tensor.shape), tensor.storage_offset()))
    monkeypatch.setattr(native, "stream", lambda device: (0, 1234))
    with FakeTensorMode(), Launching():
        hidden = torch.empty(3, 36, 40, device="cuda", dtype=torch.bfloat16)
        boxes, image_index = torch.empty(7, 4, device="cuda"), torch.empty(7, device="cuda", dtype=torch.int64)
        out = region_embedding(hidden[:, 1:], boxes, image_index, (5, 7))
        assert out.shape == (7, 40) and out.dtype == torch.bfloat16 and out.device.type == "cuda"
        grad = OP_BACKWARD(out, boxes, image_index, 3, 5, 7)
        assert grad.shape == (3, 35, 40)
    shape, dtype, where = extension.RegionShape.return_value, extension.Dtype.bfloat16, (0, 1234)
    sizes = {"B": 3, "R": 7, "H": 5, "W": 7, "C": 40}
    strided, dense = (mock.call(**sizes, image_stride=n * 40, token_stride=40) for n in (36, 35))
    assert extension.RegionShape.call_args_list == [strided, dense]
    forward, backward = extension.region_embedding_forward_cuda, extension.region_embedding_backward_cuda
    forward.assert_called_once_with(((3, 35, 40), 40), (7, 4), (7,), (7, 40), dtype, shape, *where)
    scratch = (4,), (7,), (7, 12)
    backward.assert_called_once_with((7, 40), (7, 4), (7,), (3, 35, 40), dtype, shape, *scratch, *where)


def test_triton_serves_a_gpu_where_the_extension_was_built_without_cuda(monkeypatch):
    assert native.SERVERS["region_embedding"]["cuda"] == "native"  # which comes first where it was built
    cuda = [f"region_embedding_{direction}_cuda" for direction in ("forward", "backward")]
    monkeypatch.setattr(native, "extension", lambda: mock.Mock(spec=cuda))
    assert native.server("region_embedding", "cuda") == "native"
    monkeypatch.setattr(native, "extension", lambda: mock.Mock(spec=["region_embedding_forward_cpu"]))
    native.why_not.cache_clear()
    assert native.server("region_embedding", "cuda") == "triton"
    assert native.why_not("region_embedding", "cuda") is None
    monkeypatch.setattr(native, "_has_triton", lambda: False)
    native.why_not.cache_clear()
    assert native.server("region_embedding", "cuda") is None
    assert "put nvcc on PATH" in native.why_not("region_embedding", "cuda")
    native.why_not.cache_clear()


def test_the_reference_serves_on_request():
    code = (
        "import torch; from fgclip_fast.ops import native, region_embedding;"
        "print(native.why_not('region_embedding', 'cpu'));"
        "print(region_embedding(torch.ones(1, 4, 2), torch.tensor([[0, 0, 1, 1.0]]), torch.tensor([0]), (2, 2)))"
    )
    environment = os.environ | {"FGCLIP_REFERENCE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "FGCLIP_REFERENCE=1" in done.stdout and "[[1., 1.]]" in done.stdout
