"""Attention that starts out local, for small models that are trained from nothing (after arXiv 2305.09828)."""

import math

import torch
from torch import Tensor

from fgclip_fast.config.model import Vision
from fgclip_fast.model.block import Attention
from fgclip_fast.model.vision import VisionTower


@torch.no_grad()
def start_local(tower: VisionTower, part: Vision) -> None:
    """Let the patches of a vision tower start out attending to their neighbours.

    Without it a small model needs hundreds of steps to learn that. The last block is left out, since patches do not
    mix there.
    """
    tower.embeddings.position_embedding.weight[1:] = _waves(part.grid, part.width)
    for block in tower.encoder.blocks()[:-1]:
        _set_local(block.self_attn)


def _set_local(attention: Attention) -> None:
    """Set q·k of each head near a scaled identity, v·out near a negative one."""
    width = attention.q_proj.in_features
    size = width // attention.heads
    for head in range(attention.heads):
        rows = slice(head * size, (head + 1) * size)
        left, right = _halves(_near_identity(width, 0.7, 0.7), size)
        attention.q_proj.weight[rows], attention.k_proj.weight[rows] = left, right
    left, right = _halves(_near_identity(width, 0.4, -0.4), width)
    attention.v_proj.weight.copy_(right)
    attention.out_proj.weight.copy_(left.T)


def _near_identity(width: int, noise: float, identity: float) -> Tensor:
    return noise * torch.randn(width, width) * width**-0.5 + identity * torch.eye(width)


def _halves(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Two Tensor[rank, width], ``left.T @ right`` being the best approximation of ``matrix`` of that rank."""
    u, s, v = torch.linalg.svd(matrix)
    root = s[:rank, None].sqrt()
    return root * u.T[:rank], root * v[:rank]


def _waves(grid: int, width: int) -> Tensor:
    """Tensor[grid², width]: sines and cosines of row and column, of standard deviation 0.3."""
    frequency = 100.0 ** -torch.linspace(0, 1, math.ceil(width / 4))
    angle = torch.arange(grid)[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)
    both = torch.cat([axis[:, None].expand(-1, grid, -1), axis.expand(grid, -1, -1)], dim=2).flatten(0, 1)
    return both[:, :width] * (0.3 / both.std())
