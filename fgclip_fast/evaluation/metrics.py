"""Figures of merit over similarities; nothing here knows of models or files."""

import math

import torch
from torch import Tensor


def recall_at(similarity: Tensor, targets: Tensor, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """Share of rows whose k most similar columns hold a target.

    A column that ties with the best target counts before it, so that a model that says the same of everything gets
    what chance would not give it: nothing.

    Args:
        similarity: Tensor[N, M], floating.
        targets: Tensor[N, M], bool, right columns of each row; a row without any is left out.
        ks: sizes of the list looked at.

    Returns:
        ``{"r@1": …}``, in [0, 1]; empty without rows.
    """
    has = targets.any(dim=1)
    if not has.any():
        return {}
    similarity, targets = similarity[has], targets[has]
    best = similarity.masked_fill(~targets, -math.inf).amax(dim=1, keepdim=True)
    before = ((similarity >= best) & ~targets).sum(dim=1)
    return {f"r@{k}": (before < k).float().mean().item() for k in ks}


def interval(correct: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in [0, 1]; (0, 1) where nothing was counted.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
    """
    if total == 0:
        return 0.0, 1.0
    share, square = correct / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def retrieval(image: Tensor, text: Tensor, image_of_text: Tensor) -> dict[str, float]:
    """Recall both ways between images and texts.

    Args:
        image: Tensor[B, D], normalised.
        text: Tensor[N, D], normalised.
        image_of_text: Tensor[N], int64, the image of each text; an image may have many.
    """
    targets = torch.arange(len(image), device=image.device)[:, None] == image_of_text[None]
    similarity = image @ text.T
    figures = {f"image_to_text_{k}": v for k, v in recall_at(similarity, targets).items()}
    return figures | {f"text_to_image_{k}": v for k, v in recall_at(similarity.T, targets.T).items()}
