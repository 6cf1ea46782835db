"""Position tables of the text tower: the short path's rows, stretched to those of the long path."""

import torch
from torch import Tensor

KEPT = 20
"""Leading positions that stretching leaves as they are. Of the long path these come from ``position_embedding_ori``,
the others from ``position_embedding_res``."""


def long_table(kept: Tensor, stretched: Tensor) -> Tensor:
    """Join the rows of both long tables that act, Tensor[248, width] each, to one such table."""
    return torch.cat([kept[:KEPT], stretched[KEPT:]])


def stretch(table: Tensor) -> Tensor:
    """Stretch a position table of 77 rows to 248: the first 20 stay, the others are spread by 4 (as Long-CLIP does).

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
