"""Graphics cards as their datasheets state them; nothing here was measured."""

from typing import NamedTuple

import torch

GIB = 2**30


class Card(NamedTuple):
    """The peaks of a card."""

    name: str
    half: float
    """FLOP/s of bf16 and fp16 products on tensor cores, dense, summed in fp32."""
    single: float
    """FLOP/s of fp32 without tensor cores."""
    bandwidth: float
    """Of its memory, bytes/s."""
    memory: int
    """Bytes."""

    def rate(self, dtype: torch.dtype) -> float:
        """FLOP/s of products of ``dtype``."""
        return self.half if dtype.itemsize == 2 else self.single

    @property
    def usable(self) -> float:
        """Bytes for tensors: the rest is for the CUDA context, workspaces, error correction and fragmentation."""
        return 0.92 * self.memory


CARDS = {
    "a10": Card("A10", 125e12, 31.2e12, 600e9, 24 * GIB),  # NVIDIA A10 datasheet
    "rtx4090": Card("RTX 4090", 165.2e12, 82.6e12, 1008e9, 24 * GIB),  # NVIDIA Ada architecture whitepaper
    "l40s": Card("L40S", 362e12, 91.6e12, 864e9, 48 * GIB),  # NVIDIA L40S datasheet
    "a100-40gb": Card("A100 SXM 40 GB", 312e12, 19.5e12, 1555e9, 40 * GIB),  # NVIDIA A100 datasheet
    "a100": Card("A100 SXM 80 GB", 312e12, 19.5e12, 2039e9, 80 * GIB),  # NVIDIA A100 datasheet
    "h100": Card("H100 SXM", 989e12, 67e12, 3.35e12, 80 * GIB),  # NVIDIA H100 datasheet
    "h200": Card("H200 SXM", 989e12, 67e12, 4.8e12, 141 * GIB),  # NVIDIA H200 datasheet
    "b200": Card("B200", 2.25e15, 75e12, 8e12, 180 * GIB),  # NVIDIA DGX B200 datasheet, an eighth of the system
}
"""By the word that the command line takes."""
