"""FG-CLIP's objective: four terms over one batch's embeddings, summed into one scalar."""

from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from fgclip_fast.config import Loss
from fgclip_fast.config.model import Precision
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.ops import contrastive_loss, hard_negative_loss

MANY_PAIRS = 8192
"""From here a contrastive term's products are 0.27 TFLOP and more (8 N² D, D = 512), too many without tensor cores."""


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
        weights: weight of each term, what counts as a negative, and the precision of the contrastive terms' products.
        group: processes that share the global terms; None is this process alone.
    """
    e = embeddings
    zero = _zero_in_graph(e, weights)
    short_ids, long_ids, region_ids = (
        (e.short_ids, e.long_ids, e.region_ids) if weights.mask_equal_texts else (None, None, None)
    )
    short = long = region = hard_negative = zero
    if weights.short > 0:
        pair = _operands(e.image, e.short, weights.precision, group)
        short = contrastive_loss(*pair, e.scale, group=group, text_ids=short_ids)
    if weights.long > 0:
        pair = _operands(e.image, e.long, weights.precision, group)
        long = contrastive_loss(*pair, e.scale, group=group, text_ids=long_ids)
    if weights.region > 0:
        pair = _operands(e.regions, e.region_texts, weights.precision)
        region = contrastive_loss(*pair, e.region_scale, text_ids=region_ids)
    if weights.hard_negative > 0:
        regions = e.regions.index_select(0, e.hard_region)
        hard_negative = hard_negative_loss(regions, e.hard_texts, e.hard_offsets, e.hard_scale)
    total = weights.short * short + weights.long * long + weights.region * region
    total = total + weights.hard_negative * hard_negative + zero
    return Losses(total, short, long, region, hard_negative)


def _operands(
    image: Tensor, text: Tensor, precision: Precision | None, group: ProcessGroup | None = None
) -> tuple[Tensor, Tensor]:
    """Return both sides of a contrastive term in the dtype of its products."""
    pairs = len(image) * (1 if group is None else dist.get_world_size(group))
    rounds = precision == "bf16" or (precision is None and image.is_cuda and pairs >= MANY_PAIRS)
    return (image.bfloat16(), text.bfloat16()) if rounds else (image, text)


def _zero_in_graph(e: Embeddings, weights: Loss) -> Tensor:
    """Zero, with what no term reads in its graph, since DDP waits for a gradient of each parameter."""
    read_by = {
        "short": (e.image, e.short, e.scale),
        "long": (e.image, e.long, e.scale),
        "region": (e.regions, e.region_texts, e.region_scale),
        "hard_negative": (e.regions, e.hard_texts, e.hard_scale),
    }
    zero = e.scale.new_zeros(())
    for term, rows in read_by.items():
        if getattr(weights, term) == 0:
            zero = zero + sum(x.reshape(-1)[:0].sum().float() for x in rows)
    return zero
