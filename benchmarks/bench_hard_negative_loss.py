"""Hard-negative loss, forward and backward: against the released einsum and cross_entropy, and a copy of the texts.

pytest benchmarks/bench_hard_negative_loss.py --benchmark-only -s

Copy and gradients are written to fresh memory, as a process gets it for blocks of this size until it has freed many
(so conftest.py runs this first): then both are faster, and the copy, which reads the texts once, more than ours.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import DEVICE, by_turns
from fgclip_fast.ops import hard_negative_loss

R, TEXTS, D = 2048, 11, 512
# Times faster than each peer on a CPU, at least: the bars that this package sets itself.
BARS = {"released": 8.0, "clone": 1 / 1.4}


def released(regions: Tensor, texts: Tensor, offsets: Tensor, scale: Tensor) -> Tensor:
    """As in the released training code: groups of eleven, by reshape."""
    regions, texts = F.normalize(regions, dim=-1), F.normalize(texts, dim=-1)
    logits = scale * torch.einsum("rd,rkd->rk", regions, texts.view(len(regions), TEXTS, -1))
    return F.cross_entropy(logits, torch.zeros(len(regions), dtype=torch.long, device=logits.device))


def inputs(dtype: torch.dtype) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    regions, texts = (torch.randn(n, D, device=DEVICE).to(dtype).requires_grad_() for n in (R, R * TEXTS))
    scale = torch.tensor(100.0, device=DEVICE, requires_grad=True)
    return regions, texts, torch.arange(0, R * TEXTS + 1, TEXTS, device=DEVICE), scale


def with_gradients(loss, arguments: tuple[Tensor, ...]) -> list[Tensor]:
    value = loss(*arguments)
    return [value.detach(), *torch.autograd.grad(value, [x for x in arguments if x.requires_grad])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_hard_negative_loss(benchmark, dtype):
    ours, theirs = inputs(dtype), inputs(dtype)
    texts = ours[1].detach()
    tolerance = {} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.05}  # the peer's softmax is bf16 then
    for mine, peer in zip(with_gradients(hard_negative_loss, ours), with_gradients(released, theirs), strict=True):
        torch.testing.assert_close(mine, peer, check_dtype=False, **tolerance)
    peers = {"released": partial(with_gradients, released, theirs), "clone": texts.clone}
    ratios = by_turns(benchmark, partial(with_gradients, hard_negative_loss, ours), peers, rounds=25, warmup_rounds=2)
    if benchmark.enabled:  # CI runs this with --benchmark-disable: agreement only
        benchmark.extra_info.update(peer=f"torch {torch.__version__}", dtype=str(dtype), device=DEVICE, **ratios)
        benchmark.extra_info.update(bytes_over_minimum=bytes_over_minimum(ours))
        released_ratio, clone_ratio = ratios["released"], 1 / ratios["clone"]
        print(f"\n{dtype} on {DEVICE}: {released_ratio:.1f} x released, {clone_ratio:.2f} x the time of clone")
        if dtype == torch.float32 and DEVICE == "cpu":
            assert all(ratios[name] >= bar for name, bar in BARS.items())


def bytes_over_minimum(arguments: tuple[Tensor, ...]) -> float:
    """By count: the least is to read the rows in each direction and to write their gradients."""
    rows = sum(x.nbytes for x in arguments[:2])
    written = R * (4 + 8) + R * TEXTS * (4 + 4)  # losses and ranks, similarities and 1 / lengths
    read_again = R * 4 + R * TEXTS * (4 + 4)
    return (3 * rows + written + read_again + 2 * arguments[2].nbytes) / (3 * rows)
