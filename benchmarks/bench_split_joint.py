"""Gradients of queries, keys and values joined and summed: against torch.cat and a sum of its rows.

pytest benchmarks/bench_split_joint.py --benchmark-only -s

The peer is what autograd does for one linear layer whose product is cut into three. On a CPU ours is the same; on a
GPU one kernel reads each gradient once.
"""

from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import DEVICE, by_turns
from fgclip_fast.ops import split_joint

ROWS, WIDTH = (2 * 197 if DEVICE == "cpu" else 512 * 197), 768  # images of B/16


def ours(joint: Tensor, *biases: Tensor) -> tuple[Tensor, ...]:
    return split_joint(joint, biases)


def eager(joint: Tensor, *biases: Tensor) -> tuple[Tensor, ...]:
    bias = torch.cat(biases)
    return (joint + (bias - bias.detach())).chunk(3, dim=-1)


def with_gradients(split, leaves: list[Tensor], upstream: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(split(*leaves), leaves, upstream)


def test_split_joint(benchmark):
    random = torch.Generator().manual_seed(0)
    made = (torch.randn(*shape, generator=random) for shape in ((ROWS, 3 * WIDTH), *[(WIDTH,)] * 3))
    leaves = [x.to(DEVICE, torch.bfloat16).requires_grad_() for x in made]
    upstream = [torch.randn(ROWS, WIDTH, generator=random).to(DEVICE, torch.bfloat16) for _ in range(3)]
    mine, peer = (partial(with_gradients, split, leaves, upstream) for split in (ours, eager))
    for x, y in zip(mine(), peer(), strict=True):  # a fast wrong answer has no speed
        torch.testing.assert_close(x, y, rtol=0.02, atol=0.02 * float(y.abs().max()))
    ratios = by_turns(benchmark, mine, {"eager": peer}, rounds=15, warmup_rounds=2)
    if benchmark.enabled:
        benchmark.extra_info.update(peer=f"torch {torch.__version__}", device=DEVICE, **ratios)
        print(f"\nbf16 on {DEVICE}: {ratios['eager']:.2f} x torch.cat and a sum")
