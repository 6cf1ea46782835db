"""What a GPU's datasheet allows the contrastive loss, and what its kernels move, counted from their own arithmetic.

python -m benchmarks.roofline_contrastive_loss.py          # the tables of docs/performance.md; needs no GPU
"""

from typing import NamedTuple

import torch

from fgclip_fast.kernels import contrastive_tuning as tuning


class Card(NamedTuple):
    name: str
    arch: int
    flops: float
    """bf16 on tensor cores, dense, per second."""
    bandwidth: float
    """Of its memory, bytes per second."""


CARDS = (
    Card("H100 SXM", 90, 989e12, 3.35e12),  # NVIDIA H100 datasheet
    Card("H200 SXM", 90, 989e12, 4.8e12),  # NVIDIA H200 datasheet
    Card("B200", 100, 2.25e15, 8e12),  # NVIDIA DGX B200 datasheet, an eighth of the system
)
N, BF16, FP32 = 65536, 2, 4


def least_bytes(D: int) -> int:
    """Both embeddings read once, both gradients written once."""
    return 4 * N * D * BF16


def lse_pass(card: Card, D: int) -> tuple[float, float]:
    """Bytes that leave the memory at most, and bytes that leave the L2 cache."""
    config = tuning.lse_configs(tuning.TARGETS[card.arch], torch.bfloat16, "ieee", N, N)[0]
    programs = (N // config.span_m) * (N // config.span_n)
    memory = programs * (config.span_m + config.span_n) * D * BF16  # as if no two programs shared a row in the L2
    sums = 2 * FP32 * N * (N // config.span_m + N // config.span_n)
    tiles = (N // config.block_m) * (N // config.block_n)
    return memory + sums, tiles * (config.block_m + config.block_n) * D * BF16


def gradient_pass(card: Card, D: int) -> tuple[float, float]:
    """The same; a part's logits and their gradients stay in the L2, and so do the images of a row of parts."""
    R = tuning.part_shape(tuning.TARGETS[card.arch], torch.bfloat16, N, N)[0]
    images = N * D * (BF16 + FP32)  # read; their gradient written
    texts = -(-N // R) * N * D * (BF16 + 2 * FP32)  # once a row of parts: read; their gradient read and written
    logits = N * N * (2 * FP32 + 3 * BF16)  # product written, read; gradient written, read by two products
    return images + texts, logits


def main() -> None:
    print(f"N = {N}, bf16, forward and backward; GB, ms\n")
    print("| card | D | TFLOP | at the datasheet's peak | least bytes | at the datasheet's bandwidth | measured |")
    print("|---|---|---|---|---|---|---|")
    for card in CARDS:
        for D in (512, 768):
            flops = 4 * 2 * N * N * D
            compute, memory = 1e3 * flops / card.flops, 1e3 * least_bytes(D) / card.bandwidth
            print(f"| {card.name} | {D} | {flops / 1e12:.1f} | {compute:.1f} ms | {least_bytes(D) / 1e9:.2f} GB "
                  f"| {memory:.2f} ms | |")  # fmt: skip
    print("\n| card | D | pass | from memory, at most | at the datasheet's bandwidth | within the L2 | measured |")
    print("|---|---|---|---|---|---|---|")
    for card in CARDS:
        for D in (512, 768):
            for name, count in (("log-sum-exps", lse_pass), ("gradients", gradient_pass)):
                memory, cache = count(card, D)
                print(f"| {card.name} | {D} | {name} | {memory / 1e9:.1f} GB | {1e3 * memory / card.bandwidth:.1f} ms "
                      f"| {cache / 1e9:.0f} GB | |")  # fmt: skip
    print(f"\nexponentials: 4 a logit, {4 * N * N / 1e9:.1f}e9")


if __name__ == "__main__":
    main()
