"""Addition, LayerNorm and linear layers, forward and backward: against the same in eager PyTorch.

pytest benchmarks/bench_norm_linear.py --benchmark-only -s

The peer is what a plain CLIP block does: add the update and its bias, torch's LayerNorm in fp32, and one linear layer
for each of q, k and v, which read the normalised rows in the dtype of the weights.
"""

from collections.abc import Sequence
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import DEVICE, by_turns, peak_bytes
from fgclip_fast.ops import norm_linear

ROWS, WIDTH, LAYERS = 2 * 197, 768, 3  # two images of B/16; q, k and v


def eager(
    residual: Tensor, update: Tensor, update_bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, *layers: Tensor
) -> tuple[Tensor, ...]:
    total = residual + (update + update_bias)
    normed = F.layer_norm(total, (WIDTH,), norm_weight, norm_bias).to(layers[0].dtype)
    weights, biases = layers[:LAYERS], layers[LAYERS:]
    return total, *(F.linear(normed, weight, bias) for weight, bias in zip(weights, biases, strict=True))


def ours(*arguments: Tensor) -> tuple[Tensor, ...]:
    return norm_linear(*arguments[:5], arguments[5 : 5 + LAYERS], arguments[5 + LAYERS :])


def inputs(products: torch.dtype) -> list[Tensor]:
    """A residual stream in fp32, and what the products read and write in ``products``."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = torch.float32, std: float = 1.0) -> Tensor:
        return (std * torch.randn(*shape, generator=random)).to(DEVICE, dtype).requires_grad_()

    stream = [normal(ROWS, WIDTH), normal(ROWS, WIDTH, dtype=products), normal(WIDTH, std=0.1)]
    norm = [normal(WIDTH), normal(WIDTH, std=0.1)]
    weights = [normal(WIDTH, WIDTH, dtype=products, std=WIDTH**-0.5) for _ in range(LAYERS)]
    return [*stream, *norm, *weights, *(normal(WIDTH, dtype=products, std=0.1) for _ in range(LAYERS))]


def with_gradients(run, leaves: Sequence[Tensor], upstream: Sequence[Tensor]) -> list[Tensor]:
    outputs = run(*leaves)
    return [*(x.detach() for x in outputs), *torch.autograd.grad(outputs, leaves, upstream)]


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16], ids=str)
def test_norm_linear(benchmark, products):
    leaves = inputs(products)
    random = torch.Generator().manual_seed(1)
    upstream = [torch.randn(x.shape, generator=random).to(x) for x in eager(*leaves)]
    mine, peer = (partial(with_gradients, run, leaves, upstream) for run in (ours, eager))
    share = 1e-5 if products == torch.float32 else 0.02
    for x, y in zip(mine(), peer(), strict=True):  # a fast wrong answer has no speed
        torch.testing.assert_close(x, y, rtol=share, atol=share * float(y.abs().max()))
    ratios = by_turns(benchmark, mine, {"eager": peer}, rounds=15, warmup_rounds=2)
    if benchmark.enabled:
        memory = peak_bytes(peer)[0] / max(1, peak_bytes(mine)[0])
        benchmark.extra_info.update(
            peer=f"torch {torch.__version__}", products=str(products), device=DEVICE, memory=memory, **ratios
        )
        print(f"\n{products} on {DEVICE}: {ratios['eager']:.2f} x eager, {memory:.2f} x its memory at the peak")
