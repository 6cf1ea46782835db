"""The user's own validation records: hard negatives, regions and captions, from the records themselves."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip_fast.config import Data
from fgclip_fast.data.causes import FILLED
from fgclip_fast.data.loader import examples
from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.evaluation.metrics import interval, retrieval
from fgclip_fast.inputs.batch import Example, make_batch
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops import hard_negative_scores

LossesOf = Callable[[Embeddings], dict[str, Tensor]]
"""The training objective: embeddings of a batch → name → loss, Tensor[]."""


def evaluate(
    model: FGCLIP, data: Data, *, losses_of: LossesOf | None = None, batch_size: int = 32, limit: int | None = None
) -> Figures:
    """Evaluate a model on the validation shards of a config.

    The figures are top-1 accuracy among each region's own negatives, top-1 of each region's text among those of its
    image, and recall of captions over all images.

    Args:
        model: the model, on its device.
        data: its ``val`` names the shards; prefix, regions and negatives are those of training, without augmentation.
        losses_of: the training objective, for validation losses; None leaves them out.
        batch_size: images a forward pass.
        limit: use only the first ``limit`` records; None uses all.

    Raises:
        OSError: a shard does not exist or cannot be read.
    """
    counts: Counter[str] = Counter()
    found = examples(data.val, image_size=model.config.vision.image_size, data=data, limit=limit, counts=counts)
    values = evaluate_examples(model, found, losses_of=losses_of, batch_size=batch_size)
    skipped = {cause: count for cause, count in counts.items() if cause not in FILLED}
    return Figures(values=values, asked=values["images"], skipped=skipped)


@torch.inference_mode()
def evaluate_examples(
    model: FGCLIP, found: Iterable[Example], *, losses_of: LossesOf | None = None, batch_size: int = 32
) -> dict[str, Any]:
    """Evaluate a model on decoded examples.

    Args:
        model: the model, on its device.
        found: the examples.
        losses_of: the training objective, for validation losses; None leaves them out.
        batch_size: images a forward pass.

    Returns:
        Shares in [0, 1], mean losses and counts, without those that the examples do not allow.
    """
    scores = _Scores()
    for batch in _batches(found, batch_size):
        embeddings = model(make_batch(batch, model.tokenizer).to(model.device))
        losses = None if losses_of is None else losses_of(embeddings)
        scores.add(embeddings, [len(example.boxes) for example in batch], losses)
    return scores.figures()


class _Scores:
    """Counts and normalised embeddings of the batches so far."""

    def __init__(self) -> None:
        self.images = self.groups = self.right_groups = self.regions = self.right_regions = 0
        self.embeddings: list[tuple[Tensor, Tensor, Tensor]] = []
        self.losses: list[dict[str, Tensor]] = []

    def add(self, e: Embeddings, regions: Sequence[int], losses: dict[str, Tensor] | None) -> None:
        """Add a batch; ``regions`` is the number of regions of each image."""
        self.images += len(e.image)
        self.embeddings.append((_unit(e.image), _unit(e.short), _unit(e.long)))
        scores = hard_negative_scores(e.regions.index_select(0, e.hard_region), e.hard_texts, e.hard_offsets)
        self.groups += len(e.hard_region)
        self.right_groups += int(scores.correct.sum())
        self._add_regions(_unit(e.regions), _unit(e.region_texts), e.region_ids, regions)
        if losses is not None:
            self.losses.append(losses)

    def _add_regions(self, regions: Tensor, texts: Tensor, ids: Tensor, counts: Sequence[int]) -> None:
        """Count the regions whose nearest text among those of their image is their own, or equal to it.

        The only region of an image has no other text to be taken for, so it is left out.
        """
        for own, text, same in zip(*(x.split(list(counts)) for x in (regions, texts, ids)), strict=True):
            if len(own) > 1:
                self.regions += len(own)
                self.right_regions += int((same[(own @ text.T).argmax(dim=1)] == same).sum())

    def figures(self) -> dict[str, Any]:
        """Shares, mean losses and counts over all batches."""
        figures: dict[str, Any] = {"images": self.images}
        if self.losses:
            names = self.losses[0]
            means = torch.stack([torch.stack(list(terms.values())) for terms in self.losses]).mean(dim=0)
            figures |= {f"loss_{name}": value for name, value in zip(names, means.tolist(), strict=True)}
        if self.groups:
            figures["hard_negative_top1"] = self.right_groups / self.groups
            figures["hard_negative_interval"] = list(interval(self.right_groups, self.groups))
            figures["hard_negative_groups"] = self.groups
        if self.regions:
            figures["region_top1_in_image"] = self.right_regions / self.regions
            figures["regions"] = self.regions
        if self.images > 1:
            image, short, long = (torch.cat(column) for column in zip(*self.embeddings, strict=True))
            own = torch.arange(self.images, device=image.device)
            for name, text in (("short", short), ("long", long)):
                figures |= {f"{name}_{key}": value for key, value in retrieval(image, text, own).items()}
        return figures


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=-1)


def _batches(found: Iterable[Example], size: int) -> Iterator[list[Example]]:
    found = iter(found)
    while batch := list(islice(found, size)):
        yield batch
