"""From a record to an example: with random choices for training, without them for evaluation."""

import numpy as np
import torch
from torch import Tensor

from fgclip_fast import config
from fgclip_fast.data.records import Record, Region
from fgclip_fast.inputs.batch import Example


def augmented(
    record: Record, image: Tensor, data: config.Data, image_size: int, random: np.random.Generator
) -> Example:
    """Make the training example of one visit; an equal state of ``random`` gives an equal example.

    Chosen at random are one of several captions; with ``data.region_choice`` "random", the regions of a record that has
    more than ``data.regions``; each region's text (long or short expression), its negatives where there are more than
    ``data.negatives``, and how far each side of its box moves out (up to ``data.box_margin`` input pixels).
    """
    regions = record.regions[: data.regions]
    if data.region_choice == "random" and len(record.regions) > data.regions:
        chosen = sorted(random.permutation(len(record.regions))[: data.regions])
        regions = tuple(record.regions[i] for i in chosen)
    region_texts = [region.long if random.random() < 0.5 else region.short for region in regions]
    hard_texts = [_random_group(region, data.negatives, random) for region in regions]
    boxes = _boxes(regions)
    if data.box_margin > 0 and regions:
        margins = random.random((len(regions), 4), dtype=np.float32) * (data.box_margin / image_size)
        boxes = _widened(boxes, torch.from_numpy(margins))
    short, long = record.short, record.long
    if record.captions:
        drawn = record.captions[random.integers(len(record.captions))]
        short, long = (drawn if text == record.captions[0] else text for text in (short, long))
    return Example(image, data.short_prefix + short, long, boxes, region_texts, hard_texts)


def plain(record: Record, image: Tensor, data: config.Data) -> Example:
    """Make the evaluation example: the first caption, short expressions, the first negatives, boxes as given."""
    regions = record.regions[: data.regions]
    hard_texts = [_group(region, region.negatives[: data.negatives]) for region in regions]
    region_texts = [region.short for region in regions]
    return Example(image, data.short_prefix + record.short, record.long, _boxes(regions), region_texts, hard_texts)


def _random_group(region: Region, most: int, random: np.random.Generator) -> list[str]:
    """The positive and up to ``most`` of its negatives, in file order."""
    negatives = region.negatives
    if len(negatives) > most:
        negatives = tuple(negatives[i] for i in sorted(random.permutation(len(negatives))[:most]))
    return _group(region, negatives)


def _group(region: Region, negatives: tuple[str, ...]) -> list[str]:
    return [region.short, *negatives] if negatives else []


def _boxes(regions: tuple[Region, ...]) -> Tensor:
    return torch.tensor([region.box for region in regions], dtype=torch.float32).reshape(-1, 4)


def _widened(boxes: Tensor, margins: Tensor) -> Tensor:
    """Move each side out by its margin, up to the image's edge; a side beyond the edge stays."""
    low, high = boxes[:, :2], boxes[:, 2:]
    low = torch.minimum(low, (low - margins[:, :2]).clamp(min=0))
    high = torch.maximum(high, (high + margins[:, 2:]).clamp(max=1))
    return torch.cat([low, high], dim=1)
