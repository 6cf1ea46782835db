"""The sizes of every section: those of a card, and tiny ones for a rehearsal."""

from dataclasses import dataclass

import torch

from fgclip_fast.config.model import Model, Text, Vision
from fgclip_fast.presets import B16


@dataclass(frozen=True)
class Sizes:
    """The device and the sizes of all sections.

    Attributes:
        device: Of all tensors.
        rehearsal: True where times mean nothing; what takes long for a reason other than size is left out.
        product: Side of the square product that is the ceiling of arithmetic.
        copied: Bytes of the copy that is the ceiling of memory.
        pairs: Sizes of the contrastive loss, rising.
        pairs_with_logits: The largest of them at which a peer that stores all logits is tried.
        dim: Width of an embedding.
        images: Images whose texts, regions and tokens the ops get.
        steps: Images of a training step with FineHARD's mean of hard regions, and with all regions hard.
        peer_images: Images of the released step, which needs far more memory.
        model: Of the steps.
        repeats: Timed runs of an op.
    """

    device: torch.device
    rehearsal: bool
    product: int
    copied: int
    pairs: tuple[int, ...]
    pairs_with_logits: int
    dim: int
    images: int
    steps: tuple[int, int]
    peer_images: int
    model: Model
    repeats: int

    @property
    def on_gpu(self) -> bool:
        """True on a card."""
        return self.device.type == "cuda"


def of_a_card() -> Sizes:
    """The sizes of the benchmark itself."""
    return Sizes(
        device=torch.device("cuda", torch.cuda.current_device()),
        rehearsal=False,
        product=8192,
        copied=2**31,
        pairs=(8192, 16384, 65536),
        pairs_with_logits=16384,
        dim=768,
        images=512,
        steps=(512, 256),
        peer_images=64,
        model=B16,
        repeats=10,
    )


def of_a_rehearsal() -> Sizes:
    """Sizes of which every section takes seconds on a CPU."""
    return Sizes(
        device=torch.device("cpu"),
        rehearsal=True,
        product=64,
        copied=2**16,
        pairs=(64, 96),
        pairs_with_logits=96,
        dim=32,
        images=2,
        steps=(2, 2),
        peer_images=2,
        model=Model(
            vision=Vision(image_size=32, patch_size=16, width=32, layers=2, heads=2, mlp=64),
            text=Text(width=32, layers=1, heads=2, mlp=64),
            projection=32,
            packing="prefix-tree",
        ),
        repeats=2,
    )
