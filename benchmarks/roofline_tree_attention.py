"""What the kernels of tree attention move for a stage-2 batch of 512 images, counted from its tree.

python -m benchmarks.roofline_tree_attention            # the table of docs/performance.md; needs no GPU

A row is one token's values of one of q, k, v, their gradients, the output or its gradient: 8 heads of 64 in bf16.
The least reads each row once and writes each result. "From memory" has what a kernel loads twice come from the L2 cache
the second time, since programs that share rows run side by side; "all loads" has none of it.
"""

import random
from typing import NamedTuple

import torch

from benchmarks.workload import NEGATIVES, flat, group, random_text
from fgclip_fast.kernels.tree_attention import blocks_of
from fgclip_fast.ops import Tree, prefix_tree
from fgclip_fast.ops.tree import REACH, TILE

IMAGES, GROUPS, HEADS, HEAD_DIM = 512, 4, 8, 64
ROW = 2 * HEADS * HEAD_DIM  # bytes


class Rows(NamedTuple):
    """Rows of bf16 that a pass moves; an fp32 row counts twice."""

    least: int
    from_memory: int
    all_loads: int


def batch_tree() -> Tree:
    """Of each image a short and a long caption, four region texts of which each has ten hard negatives."""
    draw = random.Random(0)
    short = [row for _ in range(GROUPS * IMAGES) for row in group(draw)]
    short += [random_text(draw, 20) for _ in range(IMAGES)]
    long = [random_text(draw, draw.randint(100, 120)) for _ in range(IMAGES)]
    assert len(short) == IMAGES * (GROUPS * (1 + NEGATIVES) + 1)
    return prefix_tree(*flat(short + long), len(short))


def forward(tree: Tree) -> Rows:
    """q read, out written; k and v of each tile and of its spine."""
    T = len(tree.token)
    return Rows(least=4 * T, from_memory=4 * T, all_loads=2 * T + 2 * (T + len(tree.spine)))


def backward(tree: Tree) -> Rows:
    """q, k, v, out and grad read, three gradients written; and the rows of keys that reach far, which are added up."""
    T, far, blocks = len(tree.token), len(tree.far_rows), backward_blocks()
    parts = 2 * far + 2 * 2 * 2 * far * (TILE // blocks["BLOCK"])  # k and v, gathered; fp32 parts, written and read
    ahead = 3 * _near_queries(tree, **blocks)  # q, grad, out
    queries = 3 * T + 2 * (T + len(tree.spine))
    return Rows(least=8 * T, from_memory=8 * T + parts, all_loads=queries + ahead + 2 * T + 3 * T + parts)


def backward_blocks() -> dict[str, int]:
    blocks = blocks_of("backward", torch.empty(0, HEADS, HEAD_DIM, dtype=torch.bfloat16))
    return {name: blocks[name] for name in ("BLOCK", "STEP")}


def _near_queries(tree: Tree, BLOCK: int, STEP: int) -> int:
    """Of each block of keys the queries up to its last descendant, at most REACH tiles on; by steps."""
    first = torch.arange(0, len(tree.token), BLOCK)
    last = torch.stack([part.max() for part in tree.end.split(BLOCK)])
    last = last.minimum((first // TILE + REACH) * TILE)
    return int(((last - first + STEP - 1) // STEP * STEP).sum())


def main() -> None:
    tree = batch_tree()
    T, tiles = len(tree.token), len(tree.spine_offsets) - 1
    mean_spine = len(tree.spine) / tiles
    print(f"{IMAGES} images: {T} tokens in the tree, mean spine {mean_spine:.1f}, {len(tree.far_rows)} far rows")
    print("\n| pass | least | from memory | all loads |\n|---|---|---|---|")
    for name, rows in (("forward", forward(tree)), ("backward", backward(tree))):
        least, memory, loads = (count * ROW / 1e9 for count in rows)
        print(f"| {name} | {least:.2f} GB | {memory:.2f} GB, {memory / least:.2f} x | {loads:.2f} GB |")


if __name__ == "__main__":
    main()
