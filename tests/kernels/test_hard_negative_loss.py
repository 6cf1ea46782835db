"""The Triton kernels of the hard-negative loss as a GPU would get them: launches from the public op, and resources."""

from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from fgclip_fast.kernels import hard_negative_loss as kernels
from fgclip_fast.ops import hard_negative_loss
from tests.ahead_of_time import ARCHITECTURES, fake_cuda, recorded_launches
from tests.op_module import op_module

op = op_module("hard_negative_loss")


def launches_of(D, dtype):
    """What the public op and its backward launch for CUDA tensors: 3 regions with 7 texts."""
    plain = {name: getattr(op, name)._init_fn for name in ("_forward", "_backward")}  # a custom op stops at its fake
    saved = []

    def keep(*inputs):
        saved.extend([*inputs, *(x for i, x in enumerate(plain["_forward"](*inputs)) if i not in (0, 2))])
        return inputs[-1], *[None] * 4

    with fake_cuda(), mock.patch.multiple(op, _forward=keep, _backward=plain["_backward"]):

        def step():
            regions, texts = (torch.empty(rows, D, dtype=dtype, device="cuda") for rows in (3, 7))
            offsets, scale = torch.empty(4, dtype=torch.int64, device="cuda"), torch.empty((), device="cuda")
            loss = hard_negative_loss(regions, texts, offsets, scale)
            op._differentiate(SimpleNamespace(saved_tensors=saved), loss)

        return recorded_launches(step, kernels)


def test_launches_one_program_a_region_on_a_gpu():
    forward, backward = launches_of(512, torch.bfloat16)
    for launch, kernel in ((forward, "_forward_kernel"), (backward, "_backward_kernel")):
        assert launch.kernel is getattr(kernels, kernel) and launch.grid == (3,)
        arguments = launch.arguments
        assert arguments["texts_ptr"].shape == (7, 512) and arguments["texts_ptr"].device.type == "cuda"
        assert (arguments["region_stride"], arguments["text_stride"], arguments["D"]) == (512, 512, 512)
        assert arguments["offsets_ptr"].shape == (4,) and arguments["scale_ptr"].dtype == torch.float32
    assert backward.arguments["grad_texts_ptr"].dtype == torch.bfloat16
    assert backward.arguments["losses_ptr"].shape == (3,) and backward.arguments["similarity_ptr"].shape == (7,)


def test_too_wide_rows_are_refused_on_a_gpu():
    with pytest.raises(ValueError, match="on a GPU D must be at most 8192, got 8193"):
        launches_of(8193, torch.bfloat16)


WIDTHS = [512, 768, *(pytest.param(D, marks=pytest.mark.slow) for D in (7, 64, 256, 1024, 2048, 4096, 8192))]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("D", WIDTHS)
def test_compiles_for_gpus_without_spills(D, dtype):
    for launch in launches_of(D, dtype):
        for arch in ARCHITECTURES:
            kernel = launch.resources(arch)
            print(f"{launch.kernel.fn.__name__} D={D} {dtype} sm_{arch}: {kernel}")
            assert kernel.spills == 0
            assert D % 8 or ".v4" in kernel.ptx.split("ld.global", 1)[1]  # 16 bytes a load


def test_spills_would_be_seen():
    launch = launches_of(4096, torch.float32)[1]
    crowded = replace(launch, options={"num_warps": 1, "num_stages": 1})  # 4096 values of three rows in 32 threads
    assert crowded.resources(80).spills > 0
