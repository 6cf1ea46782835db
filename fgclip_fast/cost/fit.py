"""The fit of a run's step into a card's memory, and the most images that fit."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fgclip_fast.config import Config
from fgclip_fast.cost.cards import Card
from fgclip_fast.cost.step_cost import StepCost, step_cost
from fgclip_fast.inputs.batch import Batch
from fgclip_fast.inputs.texts import Texts
from fgclip_fast.ops.tree import TILE, Tree


class Fit(NamedTuple):
    """The fit of a run's step into a card."""

    cost: StepCost
    """Of the step as the config has it."""
    images: int
    """Most images that one pass holds, about; 0: not even one."""
    micro_batch_size: int | None
    """The largest even share of the batch that fits, where one pass is too large; None: not needed, or none fits."""


def fit(config: Config, card: Card, batches: Sequence[Batch]) -> Fit:
    """Counts a run's step and finds how many images fit a card; three counts, about fifteen seconds.

    Memory grows linearly with the images of a pass, so two counts tell where it meets the card's.

    Args:
        config: The run, as :func:`step_cost` takes it.
        card: Whose memory is to hold the step.
        batches: The micro-batches of one step, or the batch alone, of the run's own data.
    """
    cost = step_cost(config, batches)
    batch, images = batches[0], max(2, len(batches[0].image))
    small = images // 2
    whole = cost if len(batches) == 1 and images == len(batch.image) else step_cost(config, [resized(batch, images)])
    half = step_cost(config, [resized(batch, small)])
    an_image = (whole.peak - half.peak) / (images - small)
    most = _room(card, half, small, an_image)
    if most >= config.batch_size:
        return Fit(cost, most, None)
    micro = _room(card, step_cost(config, [resized(batch, small)] * 2), small, an_image)
    passes = math.ceil(config.batch_size / micro) if micro else 0
    return Fit(cost, most, math.ceil(config.batch_size / passes) if passes else None)


def _room(card: Card, cost: StepCost, images: int, an_image: float) -> int:
    """Images in a pass that fills the card, from the cost of one of ``images`` and the bytes of one image more."""
    return max(0, math.floor(images + (card.usable - cost.peak) / an_image))


def resized(batch: Batch, images: int) -> Batch:
    """The shapes of a batch like ``batch`` with another number of images; without values.

    Raises:
        ValueError: Texts are padded.
    """
    if batch.texts.tree is None:
        raise ValueError("step cost: model.packing must be prefix-tree or padding-free, got none")
    share = images / len(batch.image)

    def like(x: Tensor, rows: int | None = None) -> Tensor:
        rows = math.ceil(len(x) * share) if rows is None else rows
        return torch.empty(rows, *x.shape[1:], dtype=x.dtype, device="meta")

    boxes, groups = like(batch.boxes), like(batch.hard_region)
    hard = math.ceil((batch.texts.shorts - len(batch.image) - len(batch.boxes)) * share)
    texts = 2 * images + len(boxes) + hard
    return Batch(
        image=like(batch.image, images),
        texts=Texts(
            token=like(batch.texts.token),
            offsets=like(batch.texts.offsets, texts + 1),
            shorts=texts - images,
            tree=_resized_tree(batch.texts.tree, like, texts, share),
        ),
        boxes=boxes,
        image_index=like(batch.image_index, len(boxes)),
        hard_region=groups,
        hard_offsets=like(batch.hard_offsets, len(groups) + 1),
        text_ids=like(batch.text_ids, texts),
    )


def _resized_tree(tree: Tree, like: Callable[..., Tensor], texts: int, share: float) -> Tree:
    tiles = math.ceil(len(tree.token) * share / TILE)
    rows = dict.fromkeys(("token", "position", "end"), tiles * TILE)
    rows |= {"pooled": texts, "spine_offsets": tiles + 1, "far_key_offsets": tiles + 1}
    return Tree(**{name: like(array, rows.get(name)) for name, array in tree._asdict().items()})
