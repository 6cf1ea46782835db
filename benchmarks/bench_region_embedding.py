"""Region embedding, forward and backward: against the released way, and against dense weights with torch.bmm.

pytest benchmarks/bench_region_embedding.py --benchmark-only -s
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.ops import roi_align

from benchmarks.measure import DEVICE, by_turns
from fgclip_fast.ops import reference, region_embedding

B, G, C, D = 64, 14, 768, 512  # ViT-B/16: images, side of the grid, width, projected width
# Boxes an image -> times faster than the released way on a CPU, at least: the bars that this package sets itself.
BARS = {4: 10.0, 32: 8.0}


def released(tokens: Tensor, projection: Tensor, boxes: Tensor) -> Tensor:
    """As in the released code: project all tokens, make a map in fp32, pool from it."""
    maps = (tokens @ projection.t()).reshape(B, G, G, D).permute(0, 3, 1, 2).float()
    return roi_align(maps, list((boxes * G).chunk(B)), (1, 1), 1.0, -1, True).flatten(1)


def ours_projected(tokens: Tensor, projection: Tensor, boxes: Tensor) -> Tensor:
    return ours(tokens, boxes) @ projection.t()


def ours(tokens: Tensor, boxes: Tensor) -> Tensor:
    return region_embedding(tokens, boxes, _image_index(boxes), (G, G))


def dense_weights(boxes: Tensor) -> Tensor:
    """[B, boxes of an image, cells]."""
    x, y = (reference._axis_weights(boxes[:, axis], boxes[:, axis + 2], G) for axis in (0, 1))
    return (y[:, :, None] * x[:, None, :]).reshape(B, -1, G * G)


def bmm(tokens: Tensor, boxes: Tensor) -> Tensor:
    return torch.bmm(dense_weights(boxes), tokens).flatten(0, 1)


def inputs(boxes_an_image: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    tokens = torch.randn(B, G * G, C, device=DEVICE, requires_grad=True)
    projection = (torch.randn(D, C, device=DEVICE) / C**0.5).requires_grad_()
    corners = torch.rand(B * boxes_an_image, 2, 2, device=DEVICE).sort(1).values
    return tokens, projection, corners.reshape(-1, 4)


def with_gradients(function: Callable[..., Tensor], *arguments: Tensor) -> list[Tensor]:
    out = function(*arguments)
    wanted = [x for x in arguments if x.requires_grad]
    upstream = torch.linspace(-1, 1, out.numel(), device=DEVICE).view_as(out)
    return [out.detach(), *torch.autograd.grad(out, wanted, upstream)]


def _image_index(boxes: Tensor) -> Tensor:
    return torch.arange(B, device=DEVICE).repeat_interleave(len(boxes) // B)


def compare(benchmark, mine: Callable[[], list[Tensor]], peer: Callable[[], list[Tensor]], rounds: int) -> float:
    """How many times faster ``mine`` is; first they must agree."""
    for a, b in zip(mine(), peer(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    return by_turns(benchmark, mine, {"peer": peer}, rounds, warmup_rounds=1).get("peer", 0.0)


@pytest.mark.parametrize("boxes_an_image", BARS)
def test_against_the_released_way(benchmark, boxes_an_image):
    tokens, projection, boxes = inputs(boxes_an_image)
    mine, peer = (partial(with_gradients, way, tokens, projection, boxes) for way in (ours_projected, released))
    ratio = compare(benchmark, mine, peer, rounds=9)
    if benchmark.enabled:  # CI runs this with --benchmark-disable: agreement only
        benchmark.extra_info.update(peer=f"torchvision {torchvision.__version__}", ratio=ratio, device=DEVICE)
        benchmark.extra_info.update(bytes_over_minimum=bytes_over_minimum(boxes))
        print(f"\n{boxes_an_image} boxes an image on {DEVICE}: {ratio:.1f} x the released way")
        assert DEVICE != "cpu" or ratio >= BARS[boxes_an_image]


@pytest.mark.parametrize("boxes_an_image", BARS)
def test_against_dense_weights(benchmark, boxes_an_image):
    tokens, _, boxes = inputs(boxes_an_image)
    mine, peer = (partial(with_gradients, way, tokens, boxes) for way in (ours, bmm))
    ratio = compare(benchmark, mine, peer, rounds=25)
    if benchmark.enabled:
        benchmark.extra_info.update(peer=f"bmm, torch {torch.__version__}", ratio=ratio, device=DEVICE)
        print(f"\n{boxes_an_image} boxes an image on {DEVICE}: {ratio:.2f} x dense weights and torch.bmm")
        assert DEVICE != "cpu" or ratio >= 1


def bytes_over_minimum(boxes: Tensor) -> float:
    """By count, where a token that several boxes touch stays in the cache: the rest is bookkeeping."""
    touched = (dense_weights(boxes).sum(1) > 0).sum().item() * C * 4
    regions, gradient = len(boxes) * C * 4, B * G * G * C * 4
    least = touched + regions + regions + gradient
    index, weights = len(boxes) * (8 + 16), len(boxes) * 2 * G * 4
    return (least + 2 * index + 2 * (weights + index)) / least
