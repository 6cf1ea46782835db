"""The Triton kernels of the region embedding as a GPU would get them: launches from the op, and what they take."""

import re
from itertools import product
from unittest import mock

import pytest
import torch

from fgclip_fast.kernels import region_embedding as kernels
from fgclip_fast.ops import native
from tests.ahead_of_time import MULTIPROCESSORS, fake_cuda, recorded_launches
from tests.op_module import op_module

op = op_module("region_embedding")


def launches_of(dtype, C=768, grid=(14, 14)):
    """What the op and its backward launch for 7 boxes in 3 images on a GPU, where the extension has no CUDA."""
    with fake_cuda(), mock.patch.object(native, "extension", lambda: None):
        hidden = torch.empty(3, 1 + grid[0] * grid[1], C, dtype=dtype, device="cuda")
        boxes, image_index = torch.empty(7, 4, device="cuda"), torch.empty(7, dtype=torch.int64, device="cuda")

        def step():
            out = op._forward._init_fn(hidden[:, 1:], boxes, image_index, *grid)
            op._backward._init_fn(out, boxes, image_index, 3, *grid)

        return recorded_launches(step, kernels)


def test_a_cuda_tensor_reaches_the_kernels_where_the_extension_has_no_cuda():
    launches = launches_of(torch.bfloat16)
    weights, forward, again, backward = launches
    names = [launch.kernel.fn.__name__ for launch in launches]
    assert names == ["_weights_kernel", "_forward_kernel", "_weights_kernel", "_backward_kernel"]
    assert weights.grid == again.grid == (7,)
    assert forward.grid == (7, 6) and backward.grid == (3 * 14, 6)
    assert forward.arguments["image_stride"] == 197 * 768 and forward.arguments["token_stride"] == 768
    assert backward.arguments["begin_ptr"].shape == (4,) and backward.arguments["order_ptr"].shape == (7,)


@pytest.mark.parametrize(
    ("C", "grid"), [(768, (14, 14)), pytest.param(1024, (24, 24), marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_compiles_for_gpus_without_spills(dtype, C, grid):
    for launch, arch in product(launches_of(dtype, C, grid), MULTIPROCESSORS):
        used = launch.resources(arch)
        print(f"{launch.kernel.fn.__name__} C={C} {grid} {dtype} sm_{arch}: {used}, {used.ctas(arch)} CTAs an SM")
        assert used.spills == 0
        if launch.kernel.fn.__name__ != "_weights_kernel":
            assert used.ctas(arch) >= 8
            assert re.search(r"(ld|st)\.global\S*\.v4", used.ptx)  # 16 bytes at a time
