"""Figures of merit computed from similarities alone, without models or files."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def recall_at(similarity: Tensor, targets: Tensor, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """Compute recall@k: the share of rows that have a target among their k most similar columns.

    Ties count against the target, so a constant similarity scores 0.

    Args:
        similarity: Tensor[N, M], floating point.
        targets: Tensor[N, M], bool, the right columns of each row; rows without one are left out.
        ks: the values of k.

    Returns:
        ``{"r@1": …}``, in [0, 1]; empty if no row has a target.
    """
    has = targets.any(dim=1)
    if not has.any():
        return {}
    similarity, targets = similarity[has], targets[has]
    best = similarity.masked_fill(~targets, -math.inf).amax(dim=1, keepdim=True)
    before = ((similarity >= best) & ~targets).sum(dim=1)
    return {f"r@{k}": (before < k).float().mean().item() for k in ks}


def hits_at(
    queries: Tensor, answers: Tensor, ids: Tensor, ks: tuple[int, ...] = (1, 5, 10), chunk: int = 1024
) -> list[Tensor]:
    """Tell for each row whether its answer, in the same row, or one with the same id is among the k nearest.

    Ties with other answers count against it. Queries are compared ``chunk`` at a time, so that memory grows with N and
    not with its square.

    Args:
        queries: Tensor[N, D], unit rows.
        answers: Tensor[N, D], unit rows; the answer to query i is row i.
        ids: Tensor[N], int64: rows of equal id are right for each other, as equal captions are.
        ks: the values of k.
        chunk: queries compared at a time.

    Returns:
        Tensor[N], bool, for each k.
    """
    before = []
    for start in range(0, len(queries), chunk):
        similarity = queries[start : start + chunk] @ answers.T
        right = ids[start : start + chunk, None] == ids[None]
        best = similarity.masked_fill(~right, -math.inf).amax(dim=1, keepdim=True)
        before.append(((similarity >= best) & ~right).sum(dim=1))
    rank = torch.cat(before) if before else torch.zeros(0, dtype=torch.int64)
    return [rank < k for k in ks]


def answers_before(
    queries: Tensor, answers: Tensor, right: Sequence[Sequence[int]], copies: Tensor | None = None, chunk: int = 256
) -> Tensor:
    """Count for each query the wrong answers that are at least as near as its best right one.

    Similarities are compared for ``chunk`` queries at a time, in fp32: memory grows with ``chunk`` times M.

    Args:
        queries: Tensor[N, D], fp32 unit rows.
        answers: Tensor[M, D], fp32 unit rows.
        right: for each query, the rows of its right answers, at least one.
        copies: Tensor[M], how often each answer counts; None is once.
        chunk: queries compared at a time.

    Returns:
        Tensor[N], int64; 0 where a right answer is nearer than all wrong ones.
    """
    # One tensor for all chunks: many small ones between the large ones would keep freed memory from being used again.
    before = torch.zeros(len(queries), dtype=torch.int64)
    for start in range(0, len(queries), chunk):
        similarity = queries[start : start + chunk] @ answers.T
        own = right[start : start + chunk]
        row = torch.tensor([i for i, answers_of in enumerate(own) for _ in answers_of], dtype=torch.int64)
        column = torch.tensor([j for answers_of in own for j in answers_of], dtype=torch.int64)
        best = torch.full((len(own),), -math.inf).scatter_reduce(0, row, similarity[row, column], "amax")
        nearer = similarity >= best[:, None]
        nearer[row, column] = False
        # Sums of whole numbers are exact in fp32 below 2**24.
        counted = nearer.sum(dim=1) if copies is None else (nearer.float() @ copies.float()).long()
        before[start : start + chunk] = counted
    return before


def mean_of_known(values: Iterable[float | None]) -> float:
    """Compute the mean of the values that are not None; nan if there are none."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else math.nan


def interval(correct: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Compute Wilson's score interval of a share, at 95 % by default.

    Args:
        correct: number of successes.
        total: number of trials.
        z: quantile of the normal distribution that sets the confidence.

    Returns:
        Lower and upper end in [0, 1]; (0, 1) without trials.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
    """
    if total == 0:
        return 0.0, 1.0
    share, square = correct / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def retrieval(image: Tensor, text: Tensor, image_of_text: Tensor) -> dict[str, float]:
    """Compute recall@k from images to texts and from texts to images.

    Args:
        image: Tensor[B, D], normalised embeddings.
        text: Tensor[N, D], normalised embeddings.
        image_of_text: Tensor[N], int64, the image of each text; an image may have several.

    Returns:
        ``{"image_to_text_r@1": …, "text_to_image_r@1": …}`` for k = 1, 5, 10.
    """
    targets = torch.arange(len(image), device=image.device)[:, None] == image_of_text[None]
    similarity = image @ text.T
    figures = {f"image_to_text_{k}": v for k, v in recall_at(similarity, targets).items()}
    return figures | {f"text_to_image_{k}": v for k, v in recall_at(similarity.T, targets.T).items()}
