"""A model on a user's own validation records: hard negatives, regions and captions, from the records themselves."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip_fast.evaluation.metrics import interval, retrieval
from fgclip_fast.inputs.batch import Example, make_batch
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops import hard_negative_scores


@torch.inference_mode()
def evaluate(
    model: FGCLIP,
    examples: Iterable[Example],
    *,
    losses_of: Callable[[Embeddings], dict[str, Tensor]] | None = None,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Top-1 among each region's own negatives, recall of captions over all images and of regions within an image.

    Args:
        model: the model, on its device.
        examples: decoded validation records.
        losses_of: the training objective, for validation losses (name → Tensor[]); None leaves them out.
        batch_size: images a pass.

    Returns:
        Figures in [0, 1] and counts, without those that the records do not allow.
    """
    tally = _Tally()
    for batch in _in_batches(examples, batch_size):
        embeddings = model(make_batch(batch, model.tokenizer).to(model.device))
        losses = None if losses_of is None else losses_of(embeddings)
        tally.add(embeddings, [len(e.boxes) for e in batch], losses)
    return tally.figures()


class _Tally:
    def __init__(self) -> None:
        self.images = self.groups = self.right = self.regions = self.found = 0
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self.losses: list[dict[str, Tensor]] = []

    def add(self, e: Embeddings, regions: Sequence[int], losses: dict[str, Tensor] | None) -> None:
        self.images += len(e.image)
        self.parts.append((_unit(e.image), _unit(e.short), _unit(e.long)))
        own = e.regions.index_select(0, e.hard_region)
        scores = hard_negative_scores(own, e.hard_texts, e.hard_offsets)
        self.groups += len(own)
        self.right += int(scores.correct.sum())
        self._rank_within_images(_unit(e.regions), _unit(e.region_texts), e.region_ids, regions)
        if losses is not None:
            self.losses.append(losses)

    def _rank_within_images(self, regions: Tensor, texts: Tensor, ids: Tensor, counts: Sequence[int]) -> None:
        """Whether each region's own text (or an equal one) is the nearest of its image's; alone proves nothing."""
        for own, text, same in zip(*(x.split(list(counts)) for x in (regions, texts, ids)), strict=True):
            if len(own) > 1:
                self.regions += len(own)
                self.found += int((same[(own @ text.T).argmax(dim=1)] == same).sum())

    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = {"images": self.images}
        if self.losses:
            names = self.losses[0]
            means = torch.stack([torch.stack(list(terms.values())) for terms in self.losses]).mean(dim=0)
            figures |= {f"loss_{name}": value for name, value in zip(names, means.tolist(), strict=True)}
        if self.groups:
            figures["hard_negative_top1"] = self.right / self.groups
            figures["hard_negative_interval"] = list(interval(self.right, self.groups))
            figures["hard_negative_groups"] = self.groups
        if self.regions:
            figures["region_top1_in_image"] = self.found / self.regions
            figures["regions"] = self.regions
        if self.images > 1:
            image, short, long = (torch.cat(column) for column in zip(*self.parts, strict=True))
            own = torch.arange(self.images, device=image.device)
            for name, text in (("short", short), ("long", long)):
                figures |= {f"{name}_{key}": value for key, value in retrieval(image, text, own).items()}
        return figures


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=-1)


def _in_batches(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    examples = iter(examples)
    while batch := list(islice(examples, size)):
        yield batch
