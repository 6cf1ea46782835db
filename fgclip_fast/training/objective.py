"""FG-CLIP's objective: four terms over one batch's embeddings, summed into one scalar."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from fgclip_fast.config import Loss
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.ops import contrastive_loss, hard_negative_loss


class Losses(NamedTuple):
    """The weighted sum and its unweighted terms, each Tensor[], fp32."""

    total: Tensor
    short: Tensor
    long: Tensor
    region: Tensor
    hard_negative: Tensor


def objective(embeddings: Embeddings, weights: Loss, group: ProcessGroup | None = None) -> Losses:
    """Compute FG-CLIP's losses: short and long global terms, region term, hard-negative term (arXiv 2505.05071).

    The global terms span all processes of ``group``; the other two are over the regions of this process alone
    and call no collective, since the number of regions differs between processes. A term that has nothing to compare,
    or the weight 0, is exactly 0, has zero gradients and keeps its parameters in the graph.

    Args:
        embeddings: of a batch; rows of any length.
        weights: weight of each term.
        group: processes that share the global terms; None is this process alone.
    """
    e = embeddings
    zero = _zero_in_graph(e)
    short_ids, long_ids, region_ids = (
        (e.short_ids, e.long_ids, e.region_ids) if weights.mask_equal_texts else (None, None, None)
    )
    short = long = region = hard_negative = zero
    if weights.short > 0:
        short = contrastive_loss(e.image, e.short, e.scale, group=group, text_ids=short_ids)
    if weights.long > 0:
        long = contrastive_loss(e.image, e.long, e.scale, group=group, text_ids=long_ids)
    if weights.region > 0:
        region = contrastive_loss(e.regions, e.region_texts, e.region_scale, text_ids=region_ids)
    if weights.hard_negative > 0:
        regions = e.regions.index_select(0, e.hard_region)
        hard_negative = hard_negative_loss(regions, e.hard_texts, e.hard_offsets, e.hard_scale)
    total = weights.short * short + weights.long * long + weights.region * region
    total = total + weights.hard_negative * hard_negative + zero
    return Losses(total, short, long, region, hard_negative)


def _zero_in_graph(e: Embeddings) -> Tensor:
    """Zero, with every embedding and scale in its graph, since DDP waits for a gradient of each parameter."""
    empty = [rows[:0].sum().float() for rows in (e.image, e.short, e.long, e.regions, e.region_texts, e.hard_texts)]
    return torch.stack(empty).sum() + 0.0 * (e.scale + e.region_scale + e.hard_scale)
