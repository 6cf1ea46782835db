"""Interface of the engines that make the contrastive loss's two passes over the logits, and what they exchange.

There are two: ``ops/contrastive_torch.py`` (torch products, with C++ between them on a CPU) and
``kernels/contrastive_engine.py`` (Triton and cuBLAS). Each is a module that has the three functions of ``Engine``.
Logits are scaled cosines in base 2, ``scale * log2(e) * cosine``; nothing here communicates or enters autograd's graph.
"""

import math
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from fgclip_fast.kernels.lse import Lse

__all__ = ["Engine", "Ids", "Lse", "mean_loss"]

Ids = tuple[Tensor, Tensor]
"""Text ids of the rows, Tensor[B], and of the columns, Tensor[N]; int64."""


class Engine(Protocol):
    """Computes the log-sum-exps of logits, and the gradients of a mean loss of 1. All tensors are on one device."""

    def whole(
        self,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        text_ids: Tensor | None,
        wanted: Sequence[bool],
        memory_budget: int,
    ) -> tuple[Lse, Lse, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Compute all that one process needs, for ``image [B, D]`` and ``text [B, D]`` of any length.

        Args:
            image: Tensor[B, D].
            text: Tensor[B, D].
            scale: Tensor[], fp32 (of fp64 inputs fp64), as are all results.
            text_ids: Tensor[B], int64; texts of equal id are not negatives of each other.
            wanted: Whether the gradients of image, text and scale are wanted.
            memory_budget: Bytes of extra memory for keeping logits between the passes; on a GPU, for stripes.

        Returns:
            Log-sum-exps of images over texts and of texts over images; the logit of each pair, Tensor[B]; and the
            gradients of image, text and scale, empty unless wanted.
        """
        ...

    def own_lse(self, rows: Tensor, columns: Tensor, scale: Tensor, ids: Ids | None, first: int) -> tuple[Lse, Tensor]:
        """Compute the log-sum-exps of a rank's ``rows [B, D]`` over all ``columns [N, D]``, and each row's own logit.

        Row ``r`` belongs to column ``first + r``. The own logits are a Tensor[B].
        """
        ...

    def own_gradient(
        self,
        rows: Tensor,
        columns: Tensor,
        scale: Tensor,
        row_lse: Lse,
        column_lse: Lse,
        ids: Ids | None,
        first: int,
    ) -> tuple[Tensor, Tensor]:
        """Compute the gradient of a rank's rows, Tensor[B, D], and these rows' share of the scale's, Tensor[].

        The rows' gradient is times the number of ranks, as data-parallel averaging expects.
        """
        ...


def mean_loss(rows: Lse, columns: Lse, positive: Tensor) -> Tensor:
    """Compute the mean cross-entropy over rows and columns; the order of sums keeps the digits of a small loss.

    Args:
        rows: Log-sum-exps of B rows.
        columns: Log-sum-exps of B columns.
        positive: Tensor[B], the logit of each pair.

    Returns:
        Tensor[], in base e.
    """
    by_row, by_column = ((lse.maximum - positive) + lse.log for lse in (rows, columns))
    return (by_row + by_column).sum() * (math.log(2) / (2 * max(1, len(positive))))
