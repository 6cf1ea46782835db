"""A side of the contrastive loss's logits, rows or columns, as its kernels take it."""

from typing import NamedTuple

import torch
from torch import Tensor

from fgclip_fast.kernels.launch import rows as rows_of

# fp16 loss scale of each side. Gradients of logits lie in [-2, 2]; times 2^7 for the row and 2^7 for the column they
# stay below 65504, the largest fp16 number, and those above 2^-28 stay normal numbers.
FP16_LOSS_SCALE = 2.0**7

Ids = tuple[Tensor, Tensor]
"""Text ids of the rows and of the columns."""


class Side(NamedTuple):
    """Rows or columns of the logits."""

    embedding: Tensor
    """[B, D], raw."""
    inverse: Tensor
    """[B]: 1 / length, 0 for a zero row."""
    operand: Tensor
    """[B, D]: what the gradients of logits are multiplied with."""
    gain: Tensor
    """[B]: what those are multiplied with before, so that they fit the dtype."""
    ids: Tensor | None

    def part(self, span: slice) -> "Side":
        """The rows of ``span``."""
        return Side._make(x if x is None else x[span] for x in self)


def side(embedding: Tensor, ids: Tensor | None) -> Side:
    """Prepare a side. Of an fp16 side, unit rows are the operand: 1/N times 1/length would leave its range."""
    embedding = rows_of(embedding)
    if precision_of(embedding) == "tf32":
        embedding = rounded_to_tf32(embedding)
    length = torch.linalg.vector_norm(embedding, dim=1, dtype=torch.float32)
    inverse = length.reciprocal().where(length > 1e-12, 0)
    operand, gain = embedding, inverse
    if embedding.dtype == torch.float16:
        operand, gain = (embedding * inverse[:, None]).half(), torch.full_like(inverse, FP16_LOSS_SCALE)
    return Side(embedding, inverse, operand, gain, ids if ids is None else ids.contiguous())


def rounded_to_tf32(x: Tensor) -> Tensor:
    """Round fp32 values to the 11 significant bits of tf32, to nearest.

    A tensor core of sm_90 truncates its operands, which biases each product by up to 2^-10; rounded values have
    nothing to truncate. Source: Dekker's splitting, doi 10.1007/BF01397083.
    """
    stretched = x * (2.0**13 + 1)
    return stretched - (stretched - x)


def precision_of(embedding: Tensor) -> str:
    """Precision of products: "ieee", or for fp32 "tf32" where the user lets torch itself multiply so on a GPU."""
    if embedding.dtype != torch.float32:
        return "ieee"
    # Where the user has set this option, torch.get_float32_matmul_precision raises; older versions lack the option.
    chosen = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
    if chosen is None:
        chosen = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return "tf32" if chosen == "tf32" else "ieee"
