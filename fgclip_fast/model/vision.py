"""The vision tower: one pass gives the global feature and the dense ones."""

from typing import Any

import torch
from torch import Tensor, nn

from fgclip_fast.config import Model, Vision
from fgclip_fast.model.attention import Attend, full
from fgclip_fast.model.block import Block, Encoder


class VisionTower(nn.Module):
    """CLIP's ViT up to ``post_layernorm``, before the projection."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        part = config.vision
        self.embeddings = PatchEmbeddings(part)
        self.pre_layrnorm = nn.LayerNorm(part.width, eps=config.layer_norm_eps)  # spelt as in the released state dict
        blocks = [Block(part, config) for _ in range(part.layers - 1)]
        self.encoder = Encoder([*blocks, LastBlock(part, config)], config)
        self.post_layernorm = nn.LayerNorm(part.width, eps=config.layer_norm_eps)

    def forward(self, pixels: Tensor, dense: bool) -> tuple[Tensor, Tensor | None]:
        """Features of images, before ``visual_projection``.

        Args:
            pixels: Tensor[B, 3, S, S], normalised.
            dense: whether the dense features are wanted.

        Returns:
            Tensor[B, width], and Tensor[B, HW, width], patches row by row, or None.
        """
        hidden = self.pre_layrnorm(self.embeddings(pixels))
        features = self.post_layernorm(self.encoder(hidden, full, last=(dense,)))
        return features[:, 0], features[:, 1:] if dense else None


class PatchEmbeddings(nn.Module):
    """Class token and patches, with learned positions."""

    def __init__(self, part: Vision) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(part.width))
        self.patch_embedding = nn.Conv2d(3, part.width, part.patch_size, stride=part.patch_size, bias=False)
        self.position_embedding = nn.Embedding(part.grid**2 + 1, part.width)

    def forward(self, pixels: Tensor) -> Tensor:
        """Tensor[B, 3, S, S] -> Tensor[B, 1 + HW, width]."""
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight


class LastBlock(Block):
    """The last block: only the class token attends, and patches take their own values.

    No more is needed for the two image features: the class token's output, and FG-CLIP's dense path, which is this
    block with attention replaced by its value path (docs/fgclip.md, four embeddings).
    """

    def forward(  # type: ignore[override]  # says what is wanted instead of which rows
        self, hidden: Tensor, attend: Attend, layout: Any, dense: bool
    ) -> Tensor:
        """Tensor[B, 1 + HW, width] -> the same, or Tensor[B, 1, width] if not ``dense``."""
        normed = self.layer_norm1(hidden)
        project = self.self_attn
        values = project.v_proj(normed)
        mixed = project.mix(project.q_proj(normed[:, :1]), project.k_proj(normed), values, attend, layout)
        if not dense:
            return self.finish(hidden[:, :1], mixed)
        return self.finish(hidden, torch.cat([mixed, values[:, 1:]], dim=1))
