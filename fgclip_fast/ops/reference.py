"""What each op means, in eager PyTorch: the spec that every fast path is tested against, and the fallback."""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, text_ids: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE: image ``i`` belongs to text ``i``; other texts are negatives unless their id is equal."""
    if len(image) == 0:
        return 0.0 * (scale + image.sum() + text.sum())  # zero, with zero gradients
    image, text = (_unit(x.to(scale.dtype)) for x in (image, text))
    logits = scale * image @ text.T
    target = torch.arange(len(image), device=image.device)
    if text_ids is not None:
        equal = text_ids[:, None] == text_ids[None, :]
        logits = logits.masked_fill(equal & (target[:, None] != target), -torch.inf)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _unit(rows: Tensor) -> Tensor:
    """Rows divided by their length; a zero row stays zero and has no gradient."""
    length = rows.norm(dim=-1, keepdim=True)
    return rows / length.where(length > 1e-12, torch.inf)
