"""Products with a layer's weights, forward and backward, by the library that is chosen here: against the other one.

pytest benchmarks/bench_linear.py --benchmark-only -s

On a CPU that is not AMD's with AVX512 both are torch's own, and the ratio is 1.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import DEVICE, by_turns
from fgclip_fast.ops.linear import linear, onednn_is_faster

SIZES = {  # rows, inputs and outputs
    "MLP of B/16's vision tower, 8 images": (8 * 197, 768, 3072),
    "MLP of its text tower, one text": (10, 512, 2048),
    "MLP of its text tower, a tree": (2048, 512, 2048),
}


@pytest.mark.parametrize("what", SIZES)
def test_linear(benchmark, what):
    R, K, N = SIZES[what]
    random = torch.Generator().manual_seed(0)
    rows, weight = (torch.randn(n, K, generator=random).to(DEVICE).requires_grad_() for n in (R, N))
    upstream = torch.randn(R, N, generator=random).to(DEVICE)

    def run(layer) -> list[Tensor]:
        out = layer(rows, weight)
        return [out.detach(), *torch.autograd.grad(out, (rows, weight), upstream)]

    for mine, theirs in zip(run(linear), run(F.linear), strict=True):  # a fast wrong answer has no speed
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))
    ratios = by_turns(benchmark, lambda: run(linear), {"torch": lambda: run(F.linear)}, rounds=15, warmup_rounds=2)
    if benchmark.enabled:
        library = "oneDNN" if DEVICE == "cpu" and onednn_is_faster() else "torch's own"
        rate = 6 * R * K * N / benchmark.stats["median"] / 1e9
        benchmark.extra_info.update(peer=f"torch {torch.__version__}", library=library, device=DEVICE, **ratios)
        print(f"\n{what}: {library}, {rate:.0f} GFLOP/s, {ratios['torch']:.2f} x F.linear")
