"""Engine of the contrastive loss in torch products, with C++ between them for fp32 on a CPU.

It makes two passes over row chunks of the logits. Pass one computes each chunk's logits by one product, and from them
the rows' and the columns' log-sum-exps. Pass two turns the logits into their gradient in place; two more products give
the embeddings' gradients. As many rows of logits as fit the memory budget are kept between the passes; each other row
costs a fourth product. Embeddings enter the products unnormalised: logits and their gradients are divided by the
lengths instead, so that no normalised copy is held.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fgclip_fast.ops import native
from fgclip_fast.ops.contrastive_engine import Ids, Lse
from fgclip_fast.ops.linear import add_product, write_product

if TYPE_CHECKING:
    from fgclip_fast import _native

CHUNK_BYTES = 16 * 2**20  # bytes of a chunk's logits: half of a usual last-level cache
# Minimum rows of a chunk. Below this, a matrix product spends its time on packing the other operand.
CHUNK_ROWS = 256
# Initial value of a running maximum: below every logit, yet finite, so that a difference of two maxima is a number.
LOWEST = -1e30


class Logits:
    """Scaled cosines in base 2 of ``rows [B, D]`` with ``columns [N, D]``, in chunks of rows.

    Row ``r`` belongs to column ``first + r``. Where ids are given, other columns of the same id are left out. The
    logits of up to ``kept`` rows are stored; those of the others are computed for each pass.
    """

    def __init__(
        self, rows: Tensor, columns: Tensor, scale: Tensor, ids: Ids | None = None, first: int = 0, kept: int = 0
    ):
        self.rows, self.columns, self.scale, self.first = rows, columns, scale, first
        self.row_inverse, self.column_inverse = inverse_length(rows), inverse_length(columns)
        self.ids = None if ids is None else (ids[0].contiguous(), ids[1].contiguous())
        B, N = len(rows), len(columns)
        size = chunk_rows(B, N)
        self.chunks = [slice(r, min(r + size, B)) for r in range(0, B, size)]
        self.kept = rows.new_empty(B if kept >= B else kept // size * size, N)
        self.scratch = rows.new_empty(size if len(self.kept) < B else 0, N)

    def statistics(self, with_columns: bool = True) -> tuple[Lse, Lse, Tensor]:
        """Compute the log-sum-exps of rows, [B], and of columns over these rows, [N], and each row's own logit, [B]."""
        B, N = len(self.rows), len(self.columns) if with_columns else 0
        rows, positive = Lse(self.rows.new_empty(B), self.rows.new_empty(B)), self.rows.new_empty(B)
        columns = Lse(self.rows.new_full((N,), LOWEST), self.rows.new_zeros(N))
        for chunk in self.chunks:
            self._summarise(self._product(chunk), chunk, rows, columns, positive)
        columns.log.log2_()  # the sums of exponentials are complete
        return rows, columns, positive

    def gradients(self, rows: Lse, columns: Lse) -> Iterator[tuple[slice, Tensor]]:
        """Yield chunks of ``softmax over rows + softmax over columns - 2 on the diagonal``, divided by both lengths.

        ``weights @ columns`` is the row gradient before its radial component is removed (see `_finish`).
        """
        for chunk in self.chunks:
            logits = self.kept[chunk] if self._is_kept(chunk) else self._product(chunk)
            self._differentiate(logits, chunk, rows, columns)
            yield chunk, logits

    def _is_kept(self, chunk: slice) -> bool:
        return bool(chunk.stop <= len(self.kept))

    def _product(self, chunk: slice) -> Tensor:
        logits = self.kept[chunk] if self._is_kept(chunk) else self.scratch[: chunk.stop - chunk.start]
        return write_product(logits, self.rows[chunk], self.columns)

    def _summarise(self, logits: Tensor, chunk: slice, rows: Lse, columns: Lse, positive: Tensor) -> None:
        """Turn products into logits, fill the chunk's rows of ``rows`` and ``positive``, add to the columns' sums."""
        self._scale(logits, chunk)
        rows.maximum[chunk] = logits.amax(1)
        rows.log[chunk] = (logits - rows.maximum[chunk, None]).exp2_().sum(1).log2_()
        positive[chunk] = logits.diagonal(self.first + chunk.start)[: len(logits)]
        if len(columns.maximum):
            raised = columns.maximum.maximum(logits.amax(0))
            columns.log.mul_((columns.maximum - raised).exp2_()).add_((logits - raised).exp2_().sum(0))
            columns.maximum.copy_(raised)

    def _differentiate(self, logits: Tensor, chunk: slice, rows: Lse, columns: Lse) -> None:
        """Turn products, or kept logits, into their gradient."""
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
    """Logits whose work between the products is done in C++ (csrc/cpu/contrastive_loss.cpp): fp32 on a CPU."""

    def _summarise(self, logits: Tensor, chunk: slice, rows: Lse, columns: Lse, positive: Tensor) -> None:
        from fgclip_fast import _native  # here, since it may not have been built

        own, sums = _native_lse(rows, chunk.start), _native_lse(columns, 0)
        _native.contrastive_loss_forward_cpu(self._chunk(logits, chunk), own, native.address(positive[chunk]), sums)

    def _differentiate(self, logits: Tensor, chunk: slice, rows: Lse, columns: Lse) -> None:
        from fgclip_fast import _native

        own, others = _native_lse(rows, chunk.start), _native_lse(columns, 0)
        _native.contrastive_loss_backward_cpu(self._chunk(logits, chunk), self._is_kept(chunk), own, others)

    def _chunk(self, logits: Tensor, chunk: slice) -> "_native.LogitsChunk":
        from fgclip_fast import _native

        (R, N), first = logits.shape, self.first + chunk.start
        inverses = native.address(self.row_inverse[chunk]), native.address(self.column_inverse)
        ids = (0, 0) if self.ids is None else (native.address(self.ids[0][chunk]), native.address(self.ids[1]))
        return _native.LogitsChunk(native.address(logits), R, N, self.scale.item(), *inverses, first, *ids)


def _native_lse(lse: Lse, start: int) -> "_native.Lse":
    from fgclip_fast import _native

    maximum, log = (native.address(part[start:]) if len(part) else 0 for part in lse)
    return _native.Lse(maximum, log)


def logits_of(
    rows: Tensor, columns: Tensor, scale: Tensor, ids: Ids | None = None, first: int = 0, memory_budget: int = 0
) -> Logits:
    """Choose the fastest kind of logits; it keeps as many rows as fit ``memory_budget`` beside all else."""
    B, N = len(rows), len(columns)
    fixed = 4 * B * rows.shape[1] + chunk_rows(B, N) * N  # values of the fp32 copies, the gradients and a chunk
    kept = max(0, memory_budget // rows.element_size() - fixed) // max(1, N)
    serves = (
        rows.dtype == torch.float32 and rows.device.type == "cpu" and native.serves("contrastive_loss", rows.device)
    )
    return (NativeLogits if serves else Logits)(rows, columns, scale, ids, first, kept)


def whole(
    image: Tensor, text: Tensor, scale: Tensor, text_ids: Tensor | None, wanted: Sequence[bool], memory_budget: int
) -> tuple[Lse, Lse, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Compute log-sum-exps, own logits and the wanted gradients of one process's batch; see ``Engine.whole``."""
    rows, columns = _operand(image), _operand(text)
    ids = None if text_ids is None else (text_ids, text_ids)
    logits = logits_of(rows, columns, scale, ids, memory_budget=memory_budget if any(wanted) else 0)
    row_lse, column_lse, positive = logits.statistics()
    with_image, with_text = wanted[0] or wanted[2], wanted[1]  # the image's gradient gives the scale's
    grad_image = torch.empty_like(rows if with_image else rows[:0])
    grad_text = torch.zeros_like(columns if with_text else columns[:0])
    for chunk, weights in logits.gradients(row_lse, column_lse) if any(wanted) else ():
        if with_image:
            write_product(grad_image[chunk], weights, columns.T)
        if with_text:
            add_product(grad_text, weights.T, rows[chunk].T)
    grad_scale = _finish(grad_image, rows, logits.row_inverse, scale)
    _finish(grad_text, columns, logits.column_inverse, scale)
    nothing = scale.new_empty(0)
    gradients = (
        grad_image if wanted[0] else nothing,
        grad_text if wanted[1] else nothing.clone(),  # outputs of a custom op may not share memory
        grad_scale if wanted[2] else nothing.clone(),
    )
    return row_lse, column_lse, positive, gradients


def own_lse(rows: Tensor, columns: Tensor, scale: Tensor, ids: Ids | None, first: int) -> tuple[Lse, Tensor]:
    """Compute the log-sum-exps and own logits of a rank's rows; see ``Engine.own_lse``."""
    logits = logits_of(_operand(rows), _operand(columns), scale, ids, first)
    lse, _, positive = logits.statistics(with_columns=False)
    return lse, positive


def own_gradient(
    rows: Tensor, columns: Tensor, scale: Tensor, row_lse: Lse, column_lse: Lse, ids: Ids | None, first: int
) -> tuple[Tensor, Tensor]:
    """Compute a rank's part of the gradients; see ``Engine.own_gradient``."""
    logits = logits_of(_operand(rows), _operand(columns), scale, ids, first)
    grad = torch.empty_like(logits.rows)
    for chunk, weights in logits.gradients(row_lse, column_lse):
        write_product(grad[chunk], weights, logits.columns.T)
    return grad, _finish(grad, logits.rows, logits.row_inverse, scale)


def chunk_rows(B: int, N: int) -> int:
    """Return how many rows a chunk has: its logits fit ``CHUNK_BYTES``, yet it has at least ``CHUNK_ROWS``."""
    return max(1, min(B, max(CHUNK_ROWS, CHUNK_BYTES // (4 * max(1, N)) // 64 * 64)))


def inverse_length(rows: Tensor) -> Tensor:
    """Compute 1 / length of each row, 0 for a zero row: Tensor[N]."""
    length: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return length.reciprocal().where(length > 1e-12, 0)


def _operand(embedding: Tensor) -> Tensor:
    """Return ``embedding`` in fp32 at least, and contiguous; most are so already."""
    return embedding.to(torch.promote_types(embedding.dtype, torch.float32)).contiguous()


def _finish(grad: Tensor, rows: Tensor, inverse: Tensor, scale: Tensor) -> Tensor:
    """Turn ``gradient of logits @ other side`` into the gradient of ``rows``, in place; return the scale's gradient.

    The radial component is removed, since a row is normalised. The scale multiplies every cosine, so its gradient is
    that component. An empty ``grad`` stays empty and gives 0.
    """
    weight, along = 1 / (2 * max(1, len(grad))), inverse.new_empty(len(grad))
    parts = (torch.split(x[: len(grad)], CHUNK_ROWS) for x in (grad, rows, inverse, along))
    # In parts, since a product over all rows would be a copy of the gradient.
    for part, own, own_inverse, own_along in zip(*parts, strict=True):
        own_along.copy_(torch.linalg.vecdot(own, part))
        part.addcmul_(own, (own_along * own_inverse.square())[:, None], value=-1).mul_(scale * weight)
    return along.sum() * weight
