"""Attention over a prefix tree, forward and backward: against one dense mask over all tokens of the tree.

pytest benchmarks/bench_tree_attention.py --benchmark-only -s

The peer is what torch offers without tiles: scaled_dot_product_attention under the mask [T, T] of ancestors. What
padding costs the whole tower is measured by bench_text_tower.py.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import DEVICE, by_turns, peak_bytes
from benchmarks.texts import KINDS, texts_of
from fgclip_fast.ops import prefix_tree, tree_attention

HEADS, HEAD_DIM, LONGS = 8, 64, 8


def dense(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    heads_first = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(*heads_first, attn_mask=seen)[0].transpose(0, 1)


def with_gradients(attend, leaves: list[Tensor], layout, upstream: Tensor) -> list[Tensor]:
    out = attend(*leaves, layout)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


@pytest.mark.parametrize("name", KINDS)
def test_tree_attention(benchmark, name):
    tree = prefix_tree(*texts_of(KINDS[name], LONGS)[:3]).to(DEVICE)
    T, random = len(tree.end), torch.Generator().manual_seed(0)
    *leaves, upstream = (torch.randn(T, HEADS, HEAD_DIM, generator=random).to(DEVICE) for _ in range(4))
    leaves = [x.requires_grad_() for x in leaves]
    i = torch.arange(T, device=DEVICE)
    seen = (i[None, :] <= i[:, None]) & (i[:, None] < tree.end[None, :])
    ours = partial(with_gradients, tree_attention, leaves, tree, upstream)
    peer = partial(with_gradients, dense, leaves, seen, upstream)
    for x, y in zip(ours(), peer(), strict=True):  # a fast wrong answer has no speed
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5 * float(y.abs().max()))
    ratios = by_turns(benchmark, ours, {"dense": peer}, rounds=5, warmup_rounds=1)
    if benchmark.enabled:
        memory = peak_bytes(peer)[0] / max(1, peak_bytes(ours)[0])
        benchmark.extra_info.update(peer=f"torch {torch.__version__}", tokens=T, device=DEVICE, memory=memory, **ratios)
        print(f"\n{name}, {T} tokens on {DEVICE}: {ratios['dense']:.1f} x dense, {memory:.1f} x its memory at the peak")
