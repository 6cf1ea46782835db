"""The vision tower: one pass gives the global feature and the dense ones."""

import torch
from torch import Tensor, nn

from fgclip_fast.config.model import Model, Vision
from fgclip_fast.inputs.image import normalize
from fgclip_fast.model.attention import Attend, full
from fgclip_fast.model.block import Block, Encoder, Stream
from fgclip_fast.model.product_weights import product_dtype
from fgclip_fast.ops import add_layer_norm
from fgclip_fast.ops.linear import linear


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
            pixels: Tensor[B, 3, S, S], uint8, or floating point and normalised already.
            dense: whether the dense features are wanted.

        Returns:
            Tensor[B, width], and Tensor[B, HW, width], patches row by row, or None.
        """
        hidden = self.pre_layrnorm(self.embeddings(pixels))
        last = self.encoder.layers[-1]
        assert isinstance(last, LastBlock)
        stream = self.encoder.run(last.image_features, self.encoder(hidden, full), full, dense)
        features = stream.normed(self.post_layernorm)
        whole, patches = features.split([1, features.shape[1] - 1], dim=1)
        return whole.squeeze(1), patches if dense else None


class PatchEmbeddings(nn.Module):
    """Class token and patches, with learned positions."""

    def __init__(self, part: Vision) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(part.width))
        self.patch_embedding = nn.Conv2d(3, part.width, part.patch_size, stride=part.patch_size, bias=False)
        self.position_embedding = nn.Embedding(part.grid**2 + 1, part.width)

    def reset_parameters(self) -> None:
        """Fill the tables as CLIP does."""
        nn.init.normal_(self.position_embedding.weight, std=0.02)
        nn.init.normal_(self.patch_embedding.weight, std=0.02)
        nn.init.normal_(self.class_embedding, std=len(self.class_embedding) ** -0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        """Tensor[B, 3, S, S], uint8 or normalised, -> Tensor[B, 1 + HW, width]."""
        patches = linear(self._patches(pixels), self.patch_embedding.weight.flatten(1))
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight

    def _patches(self, pixels: Tensor) -> Tensor:
        """The normalised pixels of each patch, Tensor[B, HW, 3 * P * P] in the dtype of products, in one pass."""
        P = self.patch_embedding.kernel_size[0]
        cut = pixels.unflatten(3, (-1, P)).unflatten(2, (-1, P)).permute(0, 2, 4, 1, 3, 5)
        dtype = product_dtype(pixels, self.patch_embedding.weight)
        if pixels.is_floating_point():
            patches = cut.to(dtype, memory_format=torch.contiguous_format)
        else:
            patches = normalize(cut, out=torch.empty(cut.shape, dtype=dtype, device=pixels.device))
        return patches.flatten(3).flatten(1, 2)


class LastBlock(Block):
    """The last block: only the class token attends, and patches take their own values.

    No more is needed for the two image features: the class token's output, and FG-CLIP's dense path, which is this
    block with attention replaced by its value path (docs/fgclip.md, four embeddings).
    """

    def image_features(self, stream: Stream, attend: Attend, dense: bool) -> Stream:
        """Tensor[B, 1 + HW, width] -> the same, or Tensor[B, 1, width] if not ``dense``."""
        weights, norm, attention = self.weights(stream.residual), self.layer_norm1, self.self_attn
        residual, normed = add_layer_norm(*stream, norm.weight, norm.bias, norm.eps, weights.out.dtype)
        weight, bias = (x[0] if len(x) == 1 else torch.cat(list(x)) for x in (weights.qkv, weights.qkv_bias))
        (q_weight, kv_weight), (q_bias, kv_bias) = (x.split([len(x) // 3, len(x) // 3 * 2]) for x in (weight, bias))
        q = linear(normed[:, :1], q_weight, q_bias)
        k, v = linear(normed, kv_weight, kv_bias).chunk(2, dim=-1)
        mixed = attend(*(x.unflatten(-1, (attention.heads, -1)) for x in (q, k, v))).flatten(-2)
        if not dense:
            return self.finish(residual[:, :1], mixed, weights)
        return self.finish(residual, torch.cat([mixed, v[:, 1:]], dim=1), weights)
