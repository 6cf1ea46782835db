"""Random weights to train from nothing: CLIP's, and for small models attention that starts out local."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fgclip_fast.model.block import Attention, Encoder
from fgclip_fast.model.text import KEPT

if TYPE_CHECKING:
    from fgclip_fast.model.network import Network

LOGIT_SCALE = 2.6592
"""ln(1 / 0.07), where the three scales start."""


@torch.no_grad()
def initialise(model: "Network") -> None:
    """Fills every parameter, from torch's global generator."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)  # LayerNorms are 1 and 0 from their constructor
    _embeddings(model)
    _blocks(model.text_model.encoder, model.config.text.width)
    _blocks(model.vision_model.encoder, model.config.vision.width)
    for projection in (model.visual_projection, model.text_projection, model.text_filip_projection):
        nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
    for scale in (model.logit_scale, model.logit_scale_finegraind, model.logit_scale_hardneg):
        nn.init.constant_(scale, LOGIT_SCALE)
    if model.config.mimetic:
        _mimetic(model)


def stretch(table: Tensor) -> Tensor:
    """Position table of 77 rows -> 248: the first 20 stay, the others are spread by 4 (as Long-CLIP does).

    Args:
        table: Tensor[77, width].

    Returns:
        Tensor[248, width], fp32; the last four rows are extrapolated.
    """
    table = table.float()
    head, low, high = table[:KEPT], table[KEPT:-1], table[KEPT + 1 :]
    steps = torch.arange(4, device=table.device)[:, None]
    between = (4 - steps) * low[:, None] / 4 + steps * high[:, None] / 4  # in the released order of operations
    tail = table[-1] + steps * (table[-1] - table[-2]) / 4
    return torch.cat([head, between.flatten(0, 1), tail])


def _embeddings(model: "Network") -> None:
    texts, images = model.text_model.embeddings, model.vision_model.embeddings
    for table in (texts.token_embedding, texts.position_embedding, images.position_embedding):
        nn.init.normal_(table.weight, std=0.02)
    nn.init.normal_(images.patch_embedding.weight, std=0.02)
    nn.init.normal_(images.class_embedding, std=len(images.class_embedding) ** -0.5)
    for long in (texts.position_embedding_ori, texts.position_embedding_res):
        long.weight.copy_(stretch(texts.position_embedding.weight))


def _blocks(encoder: Encoder, width: int) -> None:
    into, out = width**-0.5 * (2 * len(encoder.layers)) ** -0.5, width**-0.5
    for block in encoder.blocks():
        attention, mlp = block.self_attn, block.mlp
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.fc2):
            nn.init.normal_(layer.weight, std=into)
        nn.init.normal_(attention.out_proj.weight, std=out)
        nn.init.normal_(mlp.fc1.weight, std=(2 * width) ** -0.5)


def _mimetic(model: "Network") -> None:
    """Tokens of images start out looking at their neighbours (after arXiv 2305.09828); without it a small model needs
    hundreds of steps to learn that.

    The last block is left out: patches do not mix there.
    """
    vision = model.config.vision
    positions = model.vision_model.embeddings.position_embedding.weight
    positions[1:] = _waves(vision.grid, vision.width)
    for block in model.vision_model.encoder.blocks()[:-1]:
        _start_local(block.self_attn)


def _start_local(attention: Attention) -> None:
    """q·k of each head near a scaled identity, v·out near a negative one."""
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
