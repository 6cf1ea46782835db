"""The Triton kernels between the products of a block as a GPU would get them: one pass each, without spills."""

import pytest
import torch

from fgclip_fast.kernels import activation_linear, add_layer_norm
from tests.ahead_of_time import ARCHITECTURES, fake_cuda, recorded_launches


def rows(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="cuda")


def norm_launches(W, stream, products):
    """Both passes of add_layer_norm over 5,000 rows."""

    def step():
        residual, total = rows(5000, W, dtype=stream), rows(5000, W, dtype=stream)
        update, normed = rows(5000, W, dtype=products), rows(5000, W, dtype=products)
        bias, weight, statistics = rows(W), rows(W), rows(2, 5000)
        add_layer_norm.forward(residual, update, bias, weight, bias, 1e-5, total, normed, statistics)
        other = update if stream != products else None
        add_layer_norm.backward(normed, residual, total, statistics, weight, bias, residual, other, normed)

    with fake_cuda():
        return recorded_launches(step, add_layer_norm)


def activation_launches(H, kind):
    """Both passes of the activation over 5,000 rows."""

    def step():
        hidden, out, bias = rows(5000, H, dtype=torch.bfloat16), rows(5000, H, dtype=torch.bfloat16), rows(H)
        activation_linear.forward(hidden, bias, kind, out)
        activation_linear.backward(out, hidden, bias, kind, out)

    with fake_cuda():
        return recorded_launches(step, activation_linear)


def test_each_pass_is_one_launch():
    forward, backward = norm_launches(768, torch.float32, torch.bfloat16)
    assert forward.grid == (5000,) and backward.grid == (1000,)  # strips of five rows
    forward, backward = activation_launches(3072, "quick_gelu")
    assert forward.grid == (625, 12) and backward.grid == (250, 12)


@pytest.mark.parametrize("stream", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "W", [512, 768, pytest.param(1024, marks=pytest.mark.slow), pytest.param(8192, marks=pytest.mark.slow)]
)
def test_layer_norm_compiles_without_spills(W, stream):
    for launch in norm_launches(W, stream, torch.bfloat16):
        for arch in ARCHITECTURES:
            kernel = launch.resources(arch)
            print(f"{launch.kernel.fn.__name__} W={W} {stream} sm_{arch}: {kernel}")
            assert kernel.spills == 0
            assert ".v4" in kernel.ptx.split("ld.global", 1)[1]  # 16 bytes a load


@pytest.mark.parametrize("kind", ["quick_gelu", "gelu"])
def test_the_activation_compiles_without_spills(kind):
    for launch in activation_launches(3072, kind):
        for arch in ARCHITECTURES:
            kernel = launch.resources(arch)
            print(f"{launch.kernel.fn.__name__} {kind} sm_{arch}: {kernel}")
            assert kernel.spills == 0
            assert ".v4" in kernel.ptx.split("ld.global", 1)[1]  # 16 bytes a load
