"""The contrastive loss of embeddings in two passes over row chunks of the logits; no graph, no collectives.

Pass one makes each chunk's logits by one product and draws the rows' and the columns' log-sum-exps from it. Pass two
turns the logits into their gradient in place, and two more products make the embeddings' gradients of it. The logits
of as many rows as ``memory_budget`` allows are kept between the passes; the other rows cost a fourth product.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK_BYTES = 16 * 2**20  # logits of a chunk: half of a usual last-level cache
CHUNK_ROWS = 256  # at least: a product of fewer rows packs its other operand in vain


class Gradients(NamedTuple):
    """What a loss of 1 sends back; fp32 (fp64 for fp64 inputs), empty where nobody asked."""

    image: Tensor
    text: Tensor
    scale: Tensor


class Logits:
    """Scaled cosines of ``rows [B, D]`` with ``columns [N, D]``, both of unit length, never whole unless kept.

    Row ``r`` belongs to column ``first + r``. Where ids are given, other columns of the same id are left out.
    """

    def __init__(
        self, rows: Tensor, columns: Tensor, scale: Tensor, ids: tuple[Tensor, Tensor] | None, first: int, kept: int
    ):
        self.rows, self.columns, self.scale, self.ids, self.first = rows, columns, scale, ids, first
        B, N = len(rows), len(columns)
        size = chunk_rows(B, N)
        self.chunks = [slice(r, min(r + size, B)) for r in range(0, B, size)]
        self.kept = rows.new_empty(kept if kept >= B else kept // size * size, N)
        self.scratch = rows.new_empty(size if len(self.kept) < B else 0, N)

    def statistics(self, with_columns: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Log-sum-exp of rows [B] and of columns [N] (over these rows), and each row's own logit [B]."""
        B, N = len(self.rows), len(self.columns)
        row_lse, positive = self.rows.new_empty(B), self.rows.new_empty(B)
        column_lse = self.rows.new_full((N if with_columns else 0,), -torch.inf)
        for chunk in self.chunks:
            logits = self._product(chunk)
            torch.logsumexp(logits, 1, out=row_lse[chunk])
            positive[chunk] = logits.diagonal(self.first + chunk.start)[: len(logits)]
            if with_columns:
                torch.logaddexp(column_lse, logits.logsumexp(0), out=column_lse)
        return row_lse, column_lse, positive

    def gradients(self, row_lse: Tensor, column_lse: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Chunk by chunk ``softmax over rows + softmax over columns - 2 on the diagonal``."""
        for chunk in self.chunks:
            logits = self.kept[chunk] if chunk.stop <= len(self.kept) else self._product(chunk)
            by_row = (logits - row_lse[chunk, None]).exp_()
            logits.sub_(column_lse).exp_().add_(by_row)
            logits.diagonal(self.first + chunk.start)[: len(logits)].sub_(2)
            yield chunk, logits

    def _product(self, chunk: slice) -> Tensor:
        logits = self.kept[chunk] if chunk.stop <= len(self.kept) else self.scratch[: chunk.stop - chunk.start]
        torch.mm(self.rows[chunk], self.columns.T, out=logits).mul_(self.scale)
        if self.ids is not None:
            equal = self.ids[0][chunk, None] == self.ids[1]
            equal.diagonal(self.first + chunk.start)[: len(logits)].fill_(False)
            logits.masked_fill_(equal, -torch.inf)
        return logits


def whole(
    image: Tensor, text: Tensor, scale: Tensor, text_ids: Tensor | None, memory_budget: int, wanted: bool
) -> tuple[Tensor, Gradients]:
    """Loss of ``B`` pairs among themselves, and its gradients where ``wanted``."""
    unit_image, unit_text = unit(image), unit(text)
    B, D = image.shape
    fixed = (4 * B * D + chunk_rows(B, B) * B) * unit_image.element_size()  # units, gradients, a chunk
    kept = max(0, memory_budget - fixed) // max(1, B * unit_image.element_size()) if wanted else 0
    ids = None if text_ids is None else (text_ids, text_ids)
    logits = Logits(unit_image, unit_text, scale, ids, 0, kept)
    row_lse, column_lse, positive = logits.statistics()
    loss = ((row_lse + column_lse) / 2 - positive).sum() / max(1, B)
    if not wanted:
        return loss, Gradients(*(unit_image.new_empty(0) for _ in range(3)))
    grad_image, grad_text = torch.empty_like(unit_image), torch.zeros_like(unit_text)
    for chunk, weights in logits.gradients(row_lse, column_lse):
        torch.mm(weights, unit_text, out=grad_image[chunk])
        grad_text.addmm_(weights.T, unit_image[chunk])
    weight = 1 / (2 * max(1, B))
    grad_scale = through_unit_(grad_image, image, unit_image, scale * weight) * weight
    through_unit_(grad_text, text, unit_text, scale * weight)
    return loss, Gradients(grad_image, grad_text, grad_scale)


def own_lse(
    rows: Tensor, columns: Tensor, scale: Tensor, ids: tuple[Tensor, Tensor] | None, first: int
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of a rank's own rows against all columns, and their own logits; both [B]."""
    lse, _, positive = Logits(unit(rows), unit(columns), scale, ids, first, kept=0).statistics(with_columns=False)
    return lse, positive


def own_gradient(
    rows: Tensor,
    columns: Tensor,
    scale: Tensor,
    row_lse: Tensor,
    column_lse: Tensor,
    ids: tuple[Tensor, Tensor] | None,
    first: int,
) -> tuple[Tensor, Tensor]:
    """Gradient of a rank's own rows [B, D], times the number of ranks, and these rows' share of the scale's."""
    unit_rows, unit_columns = unit(rows), unit(columns)
    grad = torch.empty_like(unit_rows)
    for chunk, weights in Logits(unit_rows, unit_columns, scale, ids, first, kept=0).gradients(row_lse, column_lse):
        torch.mm(weights, unit_columns, out=grad[chunk])
    weight = 1 / (2 * max(1, len(rows)))
    return grad, through_unit_(grad, rows, unit_rows, scale * weight) * weight


def chunk_rows(B: int, N: int) -> int:
    """Rows of a chunk: its logits fit ``CHUNK_BYTES``, yet at least ``CHUNK_ROWS``."""
    return max(1, min(B, max(CHUNK_ROWS, CHUNK_BYTES // (4 * max(1, N)) // 64 * 64)))


def unit(rows: Tensor) -> Tensor:
    """Rows of length one, in fp32 at least; a zero row stays zero."""
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32), copy=True, memory_format=torch.contiguous_format)
    return rows.mul_(inverse_length(rows))


def inverse_length(rows: Tensor) -> Tensor:
    """1 / length, 0 for a zero row; Tensor[N, 1]."""
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.promote_types(rows.dtype, torch.float32))
    return length.reciprocal().where(length > 1e-12, 0)


def through_unit_(grad: Tensor, rows: Tensor, unit_rows: Tensor, weight: Tensor) -> Tensor:
    """Turns ``grad``, times ``weight`` the gradient of ``unit_rows``, into that of ``rows``, in place.

    Returns the sum of ``unit_rows * grad``: as the scale multiplies every cosine, its gradient but for the weight.
    """
    along = torch.linalg.vecdot(unit_rows, grad)[:, None]
    grad.addcmul_(unit_rows, along, value=-1).mul_(inverse_length(rows) * weight)
    return along.sum(dtype=torch.float64).to(weight.dtype)
