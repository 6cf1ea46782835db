"""The contrastive loss of embeddings in two passes over row chunks of the logits; no graph, no collectives.

Pass one makes each chunk's logits by one product and draws the rows' and the columns' log-sum-exps from it. Pass two
turns the logits into their gradient in place, and two more products make the embeddings' gradients of it. The logits
of as many rows as the memory budget allows are kept between the passes; each other row costs a fourth product.
Embeddings stand in the products as they came: logits, and their gradients, are divided by the lengths instead, so that
no normalised copy is held.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fgclip_fast.ops import native

CHUNK_BYTES = 16 * 2**20  # logits of a chunk: half of a usual last-level cache
CHUNK_ROWS = 256  # at least: a product of fewer rows packs its other operand in vain
LOWEST = -1e30  # below every logit, yet finite: the maximum of none

Ids = tuple[Tensor, Tensor] | None
"""Ids of rows and of columns."""


class Lse(NamedTuple):
    """Log-sum-exps in base 2, in two parts: their sum, rounded at scale 100, would spoil a softmax near 1."""

    maximum: Tensor
    log: Tensor
    """Of the sum of exponentials relative to ``maximum``."""


class Logits:
    """Scaled cosines, in base 2, of ``rows [B, D]`` with ``columns [N, D]``, of any length; whole only if kept.

    Row ``r`` belongs to column ``first + r``. Where ids are given, other columns of the same id are left out.
    """

    def __init__(self, rows: Tensor, columns: Tensor, scale: Tensor, ids: Ids = None, first: int = 0, kept: int = 0):
        self.rows, self.columns, self.scale, self.first = rows, columns, scale, first
        self.row_inverse, self.column_inverse = inverse_length(rows), inverse_length(columns)
        self.ids = None if ids is None else (ids[0].contiguous(), ids[1].contiguous())
        B, N = len(rows), len(columns)
        size = chunk_rows(B, N)
        self.chunks = [slice(r, min(r + size, B)) for r in range(0, B, size)]
        self.kept = rows.new_empty(B if kept >= B else kept // size * size, N)
        self.scratch = rows.new_empty(size if len(self.kept) < B else 0, N)

    def statistics(self, with_columns: bool = True) -> tuple[Lse, Lse, Tensor]:
        """Log-sum-exp of rows [B] and of columns [N] (over these rows), and each row's own logit [B]."""
        B, N = len(self.rows), len(self.columns) if with_columns else 0
        rows, positive = Lse(self.rows.new_empty(B), self.rows.new_empty(B)), self.rows.new_empty(B)
        columns = Lse(self.rows.new_full((N,), LOWEST), self.rows.new_zeros(N))
        for chunk in self.chunks:
            self._summarise(self._product(chunk), chunk, rows, columns, positive)
        columns.log.log2_()
        return rows, columns, positive

    def gradients(self, rows: Lse, columns: Lse) -> Iterator[tuple[slice, Tensor]]:
        """Chunk by chunk ``softmax over rows + softmax over columns - 2 on the diagonal``, by both lengths.

        A product of these with the columns is the gradient of the rows before what would stretch them is taken off.
        """
        for chunk in self.chunks:
            logits = self.kept[chunk] if self._is_kept(chunk) else self._product(chunk)
            self._differentiate(logits, chunk, rows, columns)
            yield chunk, logits

    def _is_kept(self, chunk: slice) -> bool:
        return chunk.stop <= len(self.kept)

    def _product(self, chunk: slice) -> Tensor:
        logits = self.kept[chunk] if self._is_kept(chunk) else self.scratch[: chunk.stop - chunk.start]
        return torch.mm(self.rows[chunk], self.columns.T, out=logits)

    def _summarise(self, logits: Tensor, chunk: slice, rows: Lse, columns: Lse, positive: Tensor) -> None:
        """Products become logits; fills the chunk's rows of ``rows`` and ``positive``, adds to the columns' sums."""
        self._scale(logits, chunk)
        rows.maximum[chunk] = logits.amax(1)
        rows.log[chunk] = (logits - rows.maximum[chunk, None]).exp2_().sum(1).log2_()
        positive[chunk] = logits.diagonal(self.first + chunk.start)[: len(logits)]
        if len(columns.maximum):
            raised = columns.maximum.maximum(logits.amax(0))
            columns.log.mul_((columns.maximum - raised).exp2_()).add_((logits - raised).exp2_().sum(0))
            columns.maximum.copy_(raised)

    def _differentiate(self, logits: Tensor, chunk: slice, rows: Lse, columns: Lse) -> None:
        """Products, or kept logits, become their gradient."""
        if not self._is_kept(chunk):
            self._scale(logits, chunk)
        by_row = (logits - rows.maximum[chunk, None]).sub_(rows.log[chunk, None]).exp2_()
        logits.sub_(columns.maximum).sub_(columns.log).exp2_().add_(by_row)
        logits.diagonal(self.first + chunk.start)[: len(logits)].sub_(2)
        logits.mul_(self.row_inverse[chunk, None]).mul_(self.column_inverse)

    def _scale(self, products: Tensor, chunk: slice) -> None:
        products.mul_(self.row_inverse[chunk, None] * (self.scale * math.log2(math.e))).mul_(self.column_inverse)
        if self.ids is not None:
            equal = self.ids[0][chunk, None] == self.ids[1]
            equal.diagonal(self.first + chunk.start)[: len(products)].fill_(False)
            products.masked_fill_(equal, -torch.inf)


class NativeLogits(Logits):
    """The same with what stands between the products in C++ (csrc/cpu/contrastive_loss.cpp), for fp32 on a CPU."""

    def _summarise(self, logits: Tensor, chunk: slice, rows: Lse, columns: Lse, positive: Tensor) -> None:
        own, sums = (_native_lse(lse, start) for lse, start in ((rows, chunk.start), (columns, 0)))
        at = native.address(positive[chunk])
        _extension().contrastive_loss_forward_cpu(self._native(logits, chunk), own, at, sums)

    def _differentiate(self, logits: Tensor, chunk: slice, rows: Lse, columns: Lse) -> None:
        own, others = (_native_lse(lse, start) for lse, start in ((rows, chunk.start), (columns, 0)))
        is_kept = self._is_kept(chunk)
        _extension().contrastive_loss_backward_cpu(self._native(logits, chunk), is_kept, own, others)

    def _native(self, logits: Tensor, chunk: slice) -> Any:
        ids = (0, 0) if self.ids is None else (native.address(self.ids[0][chunk]), native.address(self.ids[1]))
        inverses = native.address(self.row_inverse[chunk]), native.address(self.column_inverse)
        first = self.first + chunk.start
        return _extension().LogitsChunk(
            native.address(logits), *logits.shape, self.scale.item(), *inverses, first, *ids
        )


def _extension() -> Any:
    return native.extension()


def _native_lse(lse: Lse, start: int) -> Any:
    return _extension().Lse(*(native.address(part[start:]) if len(part) else 0 for part in lse))


def logits_of(
    rows: Tensor, columns: Tensor, scale: Tensor, ids: Ids = None, first: int = 0, memory_budget: int = 0
) -> Logits:
    """The fastest kind for these, keeping as many rows as fit ``memory_budget`` beside all else that the loss needs."""
    B, N = len(rows), len(columns)
    fixed = 4 * B * rows.shape[1] + chunk_rows(B, N) * N  # fp32 copies, gradients, a chunk
    kept = max(0, memory_budget // rows.element_size() - fixed) // max(1, N)
    serves = (
        rows.dtype == torch.float32 and rows.device.type == "cpu" and native.serves("contrastive_loss", rows.device)
    )
    return (NativeLogits if serves else Logits)(rows, columns, scale, ids, first, kept)


def whole(
    image: Tensor, text: Tensor, scale: Tensor, text_ids: Tensor | None, wanted: list[bool], memory_budget: int
) -> tuple[Lse, Lse, Tensor, list[Tensor]]:
    """Statistics of the logits, and of a mean loss of 1 the gradients of image, text and scale; empty unless wanted."""
    rows, columns = _operand(image), _operand(text)
    ids = None if text_ids is None else (text_ids, text_ids)
    logits = logits_of(rows, columns, scale, ids, memory_budget=memory_budget if any(wanted) else 0)
    row_lse, column_lse, positive = logits.statistics()
    with_image, with_text = wanted[0] or wanted[2], wanted[1]  # the scale's comes out of the image's
    grad_image = torch.empty_like(rows if with_image else rows[:0])
    grad_text = torch.zeros_like(columns if with_text else columns[:0])
    for chunk, weights in logits.gradients(row_lse, column_lse) if any(wanted) else ():
        if with_image:
            torch.mm(weights, columns, out=grad_image[chunk])
        if with_text:
            grad_text.addmm_(weights.T, rows[chunk])
    grad_scale = _finish(grad_image, rows, logits.row_inverse, scale)
    _finish(grad_text, columns, logits.column_inverse, scale)
    gradients = zip((grad_image, grad_text, grad_scale), wanted, strict=True)
    return row_lse, column_lse, positive, [grad if wants else grad.new_empty(0) for grad, wants in gradients]


def own_lse(rows: Tensor, columns: Tensor, scale: Tensor, ids: Ids, first: int) -> tuple[Lse, Tensor]:
    """Log-sum-exp of a rank's own rows against all columns, and their own logits; all [B]."""
    logits = logits_of(_operand(rows), _operand(columns), scale, ids, first)
    lse, _, positive = logits.statistics(with_columns=False)
    return lse, positive


def own_gradient(
    rows: Tensor, columns: Tensor, scale: Tensor, row_lse: Lse, column_lse: Lse, ids: Ids, first: int
) -> tuple[Tensor, Tensor]:
    """Gradient of a rank's own rows [B, D], times the number of ranks, and these rows' share of the scale's."""
    logits = logits_of(_operand(rows), _operand(columns), scale, ids, first)
    grad = torch.empty_like(logits.rows)
    for chunk, weights in logits.gradients(row_lse, column_lse):
        torch.mm(weights, logits.columns, out=grad[chunk])
    return grad, _finish(grad, logits.rows, logits.row_inverse, scale)


def mean_loss(rows: Lse | Tensor, columns: Lse | Tensor, positive: Tensor) -> Tensor:
    """Mean cross-entropy over rows and columns; in this order, a small loss keeps its digits."""
    each = [(maximum - positive) + log for maximum, log in (rows, columns)]
    return (each[0] + each[1]).sum() * (math.log(2) / (2 * max(1, len(positive))))


def chunk_rows(B: int, N: int) -> int:
    """Rows of a chunk: its logits fit ``CHUNK_BYTES``, yet at least ``CHUNK_ROWS``."""
    return max(1, min(B, max(CHUNK_ROWS, CHUNK_BYTES // (4 * max(1, N)) // 64 * 64)))


def inverse_length(rows: Tensor) -> Tensor:
    """1 / length, 0 for a zero row; Tensor[N]."""
    length = torch.linalg.vector_norm(rows, dim=1)
    return length.reciprocal().where(length > 1e-12, 0)


def _operand(embedding: Tensor) -> Tensor:
    """In fp32 at least, and contiguous; most are so already."""
    return embedding.to(torch.promote_types(embedding.dtype, torch.float32)).contiguous()


def _finish(grad: Tensor, rows: Tensor, inverse: Tensor, scale: Tensor) -> Tensor:
    """From ``gradient of logits @ the others`` the gradient of ``rows``, in place; returns the scale's.

    The scale multiplies every cosine, so its gradient is what lies along the rows. Gradients of no rows are none.
    """
    weight, along = 1 / (2 * max(1, len(grad))), inverse.new_empty(len(grad))
    parts = (x[: len(grad)].split(CHUNK_ROWS) for x in (grad, rows, inverse, along))
    for part, own, own_inverse, own_along in zip(*parts, strict=True):  # by parts: a product of all would be a copy
        own_along.copy_(torch.linalg.vecdot(own, part))
        part.addcmul_(own, (own_along * own_inverse.square())[:, None], value=-1).mul_(scale * weight)
    return along.sum() * weight
