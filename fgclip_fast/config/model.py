"""The fields of a model: the geometry of its towers, which the weights fix, and how it runs."""

from dataclasses import dataclass, field
from typing import Literal

from fgclip_fast.config.rules import Positive, check, divides

Precision = Literal["fp32", "bf16"]
Packing = Literal["none", "padding-free", "prefix-tree"]
Recompute = Literal["none", "mlp", "blocks"]
Attention = Literal["auto", "sdpa", "triton", "flash", "xformers", "varlen"]


@dataclass(frozen=True, kw_only=True)
class Vision:
    """Geometry of the vision tower, CLIP's ViT; the default is ViT-B/16 at 224 pixels."""

    image_size: Positive[int] = 224
    """Side of the square input, pixels."""
    patch_size: Positive[int] = 16
    """Side of a patch, pixels."""
    width: Positive[int] = 768
    """Width of the residual stream."""
    layers: Positive[int] = 12
    """Number of blocks."""
    heads: Positive[int] = 12
    """Attention heads."""
    mlp: Positive[int] = 3072
    """Hidden width of the MLPs."""

    def __post_init__(self) -> None:
        check(self, "model.vision.")
        divides(self, "model.vision.", "image_size", "patch_size")
        divides(self, "model.vision.", "width", "heads")

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, kw_only=True)
class Text:
    """Geometry of the text tower; the position tables have 77 (short path) and 248 (long path) rows."""

    width: Positive[int] = 512
    """Width of the residual stream."""
    layers: Positive[int] = 12
    """Number of blocks."""
    heads: Positive[int] = 8
    """Attention heads."""
    mlp: Positive[int] = 2048
    """Hidden width of the MLPs."""
    vocabulary: Positive[int] = 49408
    """Rows of the token embedding; CLIP's BPE has 49408."""

    def __post_init__(self) -> None:
        check(self, "model.text.")
        divides(self, "model.text.", "width", "heads")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network."""

    vision: Vision = field(default_factory=Vision)
    text: Text = field(default_factory=Text)
    projection: Positive[int] = 512
    """Width D of the joint embedding."""
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    """Activation of the MLPs; CLIP's and FG-CLIP's is quick_gelu."""
    layer_norm_eps: Positive[float] = 1e-5
    """Epsilon of every LayerNorm."""
    mimetic: bool = False
    """Start attention near local mixing, vision positions as 2-D sine/cosine: for small models without pretraining."""
    packing: Packing = "none"
    """Packing of the texts of a step: padded, back to back, or as one prefix tree (docs/packing.md)."""
    attention: Attention = "auto"
    """Attention backend of the packed text tower; auto takes the fastest that runs on this machine."""
    residual: Precision = "fp32"
    """Residual stream where products run in bf16: fp32, or bf16, which moves and keeps less and rounds each sum."""
    recompute: Recompute = "none"
    """Made again in the backward pass, not saved: none; the hidden layer of each MLP (mlp), for one more product of a
    block's nine; or whole blocks, for a second forward pass."""
    compile: bool = False
    """Compile the blocks with torch.compile."""

    def __post_init__(self) -> None:
        check(self, "model.")
        if self.compile and self.recompute == "mlp":
            raise ValueError("model.recompute mlp cannot be compiled; take blocks, or --no-model.compile")
