"""Bias, activation and a linear layer, forward and backward: against the same in eager PyTorch.

pytest benchmarks/bench_activation_linear.py --benchmark-only -s

The peer is the second half of a plain CLIP's MLP: ``x * sigmoid(1.702 x)`` as transformers writes QuickGELU (or
torch's exact gelu), then a linear layer.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import DEVICE, by_turns, peak_bytes
from fgclip_fast.ops import activation_linear

ROWS, HIDDEN, WIDTH = 2 * 197, 3072, 768  # two images of B/16


def eager(hidden: Tensor, bias: Tensor, weight: Tensor, kind: str) -> Tensor:
    x = hidden + bias.to(hidden.dtype)
    active = x * torch.sigmoid(1.702 * x) if kind == "quick_gelu" else F.gelu(x)
    return F.linear(active, weight)


def inputs(dtype: torch.dtype) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    hidden, bias = torch.randn(ROWS, HIDDEN, generator=random), 0.1 * torch.randn(HIDDEN, generator=random)
    weight = HIDDEN**-0.5 * torch.randn(WIDTH, HIDDEN, generator=random)
    return [x.to(DEVICE, t).requires_grad_() for x, t in ((hidden, dtype), (bias, torch.float32), (weight, dtype))]


def with_gradients(run, leaves: list[Tensor], kind: str, upstream: Tensor) -> list[Tensor]:
    out = run(*leaves, kind)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


@pytest.mark.parametrize("kind", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_activation_linear(benchmark, dtype, kind):
    leaves = inputs(dtype)
    upstream = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)
    mine, peer = (partial(with_gradients, run, leaves, kind, upstream) for run in (activation_linear, eager))
    share = 1e-5 if dtype == torch.float32 else 0.02
    for x, y in zip(mine(), peer(), strict=True):  # a fast wrong answer has no speed
        torch.testing.assert_close(x, y, rtol=share, atol=share * float(y.abs().max()))
    ratios = by_turns(benchmark, mine, {"eager": peer}, rounds=15, warmup_rounds=2)
    if benchmark.enabled:
        memory = peak_bytes(peer)[0] / max(1, peak_bytes(mine)[0])
        benchmark.extra_info.update(
            peer=f"torch {torch.__version__}", dtype=str(dtype), kind=kind, device=DEVICE, memory=memory, **ratios
        )
        print(f"\n{kind}, {dtype} on {DEVICE}: {ratios['eager']:.2f} x eager, {memory:.2f} x its memory at the peak")
