"""The kernel that joins three gradients as a GPU would get it: one launch, 16 bytes a load, without spills."""

import pytest
import torch

from fgclip_fast.kernels import split_joint
from tests.ahead_of_time import ARCHITECTURES, fake_cuda, recorded_launches


def launches(W, dtype):
    def step():
        parts = [torch.empty(5000, W, dtype=dtype, device="cuda") for _ in range(3)]
        split_joint.join(torch.empty(5000, 3 * W, dtype=dtype, device="cuda"), parts)

    with fake_cuda():
        return recorded_launches(step, split_joint)


def test_is_one_launch():
    (launch,) = launches(768, torch.bfloat16)
    assert launch.grid == (500, 3)  # strips of ten rows


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_compiles_without_spills(dtype):
    (launch,) = launches(768, dtype)
    for arch in ARCHITECTURES:
        kernel = launch.resources(arch)
        print(f"{dtype} sm_{arch}: {kernel}")
        assert kernel.spills == 0
        assert ".v4" in kernel.ptx.split("ld.global", 1)[1]  # 16 bytes a load
