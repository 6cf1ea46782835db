"""Inputs of each op at the size of a step, and what the least work on them is."""

from functools import cache

import torch
from torch import Tensor

from benchmarks.gpu.sizes import Sizes
from benchmarks.workload import stage2
from fgclip_fast.inputs.batch import Batch
from fgclip_fast.ops import Tree

BOXES, TEXTS = 4, 11  # of an image, and of a region
SCALE = 50.0


def normal(sizes: Sizes, *shape: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Tensor:
    """Normal numbers that a gradient is wanted of."""
    generator = torch.Generator(sizes.device).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=sizes.device).to(dtype).requires_grad_()


def pairs(sizes: Sizes, N: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Images and texts, [N, D], each text near its image; and the scale."""
    image = normal(sizes, N, sizes.dim, dtype=torch.float32)
    text = 0.3 * image.detach() + normal(sizes, N, sizes.dim, dtype=torch.float32, seed=1).detach()
    scale = torch.tensor(SCALE, device=sizes.device, requires_grad=True)
    return image.detach().to(dtype).requires_grad_(), text.to(dtype).requires_grad_(), scale


@cache
def batch(sizes: Sizes, images: int, hard_an_image: float = BOXES) -> Batch:
    """A batch of a step, on the device; of its regions ``hard_an_image`` have negatives, on average."""
    hard = [int((i + 1) * hard_an_image) - int(i * hard_an_image) for i in range(images)]
    made, _ = stage2(sizes.model, [BOXES] * images, hard)
    return made.to(sizes.device)


def tree(sizes: Sizes) -> Tree:
    """The texts of a batch, all regions hard."""
    made = batch(sizes, sizes.images).texts.tree
    assert made is not None
    return made


def qkv(sizes: Sizes, tree: Tree, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values of a text tower's block, [T, heads, head_dim]."""
    text = sizes.model.text
    shape = len(tree.end), text.heads, text.width // text.heads
    return [normal(sizes, *shape, dtype=dtype, seed=seed) for seed in range(3)]


def patches(sizes: Sizes, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, tuple[int, int]]:
    """Patch tokens [B, HW, C], boxes [4 B, 4], the image of each box, and the grid."""
    grid, width = sizes.model.vision.grid, sizes.model.vision.width
    corners = torch.rand(BOXES * sizes.images, 2, 2, generator=torch.Generator().manual_seed(0)).sort(1).values
    index = torch.arange(sizes.images, device=sizes.device).repeat_interleave(BOXES)
    tokens = normal(sizes, sizes.images, grid * grid, width, dtype=dtype)
    return tokens, corners.reshape(-1, 4).to(sizes.device), index, (grid, grid)


def groups(sizes: Sizes, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Regions [R, D], their texts [11 R, D], offsets and scale."""
    R = BOXES * sizes.images
    offsets = torch.arange(0, R * TEXTS + 1, TEXTS, device=sizes.device)
    scale = torch.tensor(SCALE, device=sizes.device, requires_grad=True)
    return (
        normal(sizes, R, sizes.dim, dtype=dtype), normal(sizes, R * TEXTS, sizes.dim, dtype=dtype, seed=1), offsets,
        scale,
    )  # fmt: skip


def block(sizes: Sizes, rows: int) -> dict[str, Tensor]:
    """A vision block's stream [rows, W] in fp32 and update [rows, W] in bf16, its weights, and fc1's output."""
    width, hidden = sizes.model.vision.width, sizes.model.vision.mlp
    single = {"dtype": torch.float32}
    return {
        "stream": normal(sizes, rows, width, **single),
        "update": normal(sizes, rows, width, seed=1),
        "update_bias": normal(sizes, width, seed=2),
        "norm_weight": normal(sizes, width, **single, seed=3),
        "norm_bias": normal(sizes, width, **single, seed=4),
        "fc1": (normal(sizes, hidden, width, **single, seed=5).detach() / width**0.5).bfloat16().requires_grad_(),
        "hidden": normal(sizes, rows, hidden, seed=6),
        "hidden_bias": normal(sizes, hidden, **single, seed=7),
        "fc2": (normal(sizes, width, hidden, **single, seed=8).detach() / hidden**0.5).bfloat16().requires_grad_(),
    }


def with_gradients(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of its sum with fixed weights by ``inputs``."""
    return [out.detach(), *torch.autograd.grad(out, inputs, upstream_of(out).to(out.dtype))]


def upstream_of(out: Tensor) -> Tensor:
    """Gradient of an output, the same numbers in every dtype."""
    return torch.linspace(0.5, 1.5, out.numel(), device=out.device).view(out.shape).bfloat16()
