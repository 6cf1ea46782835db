"""One small call of each op, forward and backward, so that each of its kernels runs once.

python -m benchmarks.gpu.small_calls [cpu]      # for a tool such as compute-sanitizer to watch
"""

import random
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.workload import flat, group, random_text
from fgclip_fast.ops import (
    activation_linear,
    add_layer_norm,
    contrastive_loss,
    hard_negative_loss,
    norm_linear,
    prefix_tree,
    region_embedding,
    tree_attention,
)

Call = Callable[[], list[Tensor]]


def calls(device: torch.device) -> dict[str, Call]:
    """By name, calls that return the output and the gradients; sizes are odd and exceed a block of each kernel."""
    random_numbers = torch.Generator().manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(shape, generator=random_numbers).to(device, dtype).requires_grad_()

    fp32, scale = torch.float32, torch.tensor(20.0, device=device, requires_grad=True)
    made: dict[str, Call] = {}
    for dtype in (torch.bfloat16, torch.float32):
        pairs = normal(301, 72, dtype=dtype), normal(301, 72, dtype=dtype), scale
        made[f"contrastive_loss {_name(dtype)}"] = _call(contrastive_loss, *pairs)
    ids = torch.arange(301, device=device) // 2
    made["contrastive_loss with ids"] = _call(lambda *x: contrastive_loss(*x, text_ids=ids), *pairs)

    offsets = torch.tensor([0, 1, 12, 23, 26], device=device)
    groups = normal(4, 72), normal(26, 72), scale
    made["hard_negative_loss"] = _call(lambda r, t, s: hard_negative_loss(r, t, offsets, s), *groups)

    boxes = torch.rand(7, 2, 2, generator=random_numbers).sort(1).values.reshape(7, 4).to(device)
    image_index = torch.tensor([0, 0, 1, 2, 2, 2, 2], device=device)
    made["region_embedding"] = _call(lambda x: region_embedding(x, boxes, image_index, (7, 7)), normal(3, 49, 72))

    tree = small_tree().to(device)
    qkv = [normal(len(tree.end), 2, 64) for _ in range(3)]
    made["tree_attention"] = _call(lambda q, k, v: tree_attention(q, k, v, tree), *qkv)

    stream, update = normal(37, 72, dtype=fp32), normal(37, 72)
    norm = normal(72), normal(72, dtype=fp32), normal(72, dtype=fp32)
    made["add_layer_norm"] = _call(lambda *x: add_layer_norm(*x, dtype=torch.bfloat16)[1], stream, update, *norm)
    made["norm_linear"] = _call(
        lambda *x: norm_linear(*x[:5], [x[5]], [x[6]])[1], stream, update, *norm, normal(40, 72), normal(40)
    )
    for kind in ("quick_gelu", "gelu"):
        inputs = normal(37, 72), normal(72, dtype=fp32), normal(40, 72)
        made[f"activation_linear {kind}"] = _call(lambda *x, kind=kind: activation_linear(*x, kind=kind), *inputs)
    return made


def small_tree():
    """The texts of three regions and four long captions: spines longer than a tile, and far keys."""
    draw = random.Random(0)
    rows = [text for _ in range(3) for text in group(draw)]
    longs = [random_text(draw, 30) for _ in range(4)]
    longs += [longs[0][:25] + random_text(draw, 90)[1:] for _ in range(8)]
    return prefix_tree(*flat(rows + longs), len(rows))


def _call(op: Callable[..., Tensor], *inputs: Tensor) -> Call:
    def run() -> list[Tensor]:
        out = op(*inputs)
        return [out.detach(), *torch.autograd.grad(out, inputs, torch.ones_like(out))]

    return run


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    for name, call in calls(torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda")).items():
        call()
        print(name, flush=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
