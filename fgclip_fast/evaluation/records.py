"""The user's own validation records: hard negatives, regions and captions, from the records themselves."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip_fast.config import Data, Loss
from fgclip_fast.data.causes import FILLED
from fgclip_fast.data.cut import count_texts
from fgclip_fast.data.file_order import FileOrder, Found
from fgclip_fast.data.fingerprint import fingerprint
from fgclip_fast.evaluation.figures import Figures, Outcomes, by_image
from fgclip_fast.evaluation.metrics import hits_at, interval
from fgclip_fast.evaluation.share import PART, Share, parts_of
from fgclip_fast.inputs.batch import Example, make_batch
from fgclip_fast.model.embeddings import Embeddings, join
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops import hard_negative_scores

LossesOf = Callable[[Embeddings], Mapping[str, Tensor]]
"""The training objective: embeddings of a batch → name → unweighted term, Tensor[]; of them, the four are read."""
RECALLS = (1, 5, 10)
PROTOCOL = (
    "own records: short path for regions, a tie with a negative is right, a tie in a ranking is wrong, equal captions "
    "are equally right"
)


def evaluate(
    model: FGCLIP,
    data: Data,
    *,
    losses_of: LossesOf | None = None,
    weights: Loss | None = None,
    batch_size: int = PART,
    limit: int | None = None,
    share: Share | None = None,
) -> Figures:
    """Evaluate a model on the validation shards of a config.

    The figures are top-1 accuracy among each region's own negatives, top-1 of each region's text among those of its
    image and of each text's region among those of the image, and recall of captions over all images. Validation losses
    are those of :data:`PART` records that follow each other, weighted by what each part holds: images for the terms of
    captions, regions, or regions with negatives.

    Args:
        model: the model, on its device.
        data: its ``val`` names the shards; prefix and number of negatives are those of training, all regions are taken,
            and nothing is augmented.
        losses_of: the terms of the training objective, for validation losses; None leaves them out.
        weights: of the terms in the total.
        batch_size: images a forward pass, up to :data:`PART`.
        limit: use only the first ``limit`` records; None uses all.
        share: the processes that divide the records among them; None is this one alone.

    Raises:
        OSError: a shard does not exist or cannot be read.
    """
    share = share or Share()
    counts: Counter[str] = Counter()
    samples = FileOrder(
        data.val,
        image_size=model.config.vision.image_size,
        data=replace(data, regions=sys.maxsize),
        counts=counts if share.first else None,
    )

    def read(positions: range) -> _Part:
        own: Counter[str] = Counter()
        return _evaluate_part(model, list(samples.read(positions, own)), own, losses_of, batch_size)

    def figures(parts: list[_Part]) -> Figures:
        found = _figures(parts, weights=weights or Loss(), counts=counts)
        asked = f"all regions, {data.negatives} negatives at most, short captions after {data.short_prefix!r}"
        return replace(found, data={"files": data.val, **fingerprint(samples.paths)}, protocol=f"{PROTOCOL}; {asked}")

    parts = parts_of(min(len(samples), limit or len(samples)))
    return share.measure(parts, read, figures)


def evaluate_examples(
    model: FGCLIP,
    examples: Iterable[Example],
    *,
    losses_of: LossesOf | None = None,
    weights: Loss | None = None,
    batch_size: int = PART,
) -> dict[str, Any]:
    """Evaluate a model on decoded examples, in this process.

    Args:
        model: the model, on its device.
        examples: the examples.
        losses_of, weights, batch_size: as of :func:`evaluate`.

    Returns:
        Shares in [0, 1], mean losses and counts, without those that the examples do not allow.
    """
    found = [Found(str(number), example) for number, example in enumerate(examples)]
    parts = [found[part.start : part.stop] for part in parts_of(len(found))]
    results = [_evaluate_part(model, part, Counter(), losses_of, batch_size) for part in parts]
    return _figures(results, weights=weights or Loss(), counts=Counter()).values


@dataclass(frozen=True)
class _Part:
    """The results of some records that follow each other.

    Attributes:
        names: of the records.
        groups, right_groups: for each record, its regions with negatives, and how many are answered rightly.
        regions, right_regions: the same for regions among those of their image.
        right_phrases: for each record, the texts of regions that find their region among those of the image.
        rows: what each mean loss is a mean over: term → number of rows.
        losses: term → mean loss.
        embeddings: Tensor[n, D] each, fp32 unit rows: images, short and long captions.
        ids: Tensor[n] each, of short and of long captions; equal captions have equal ones.
        counts: cause → defects of the records.
    """

    names: list[str]
    groups: list[int]
    right_groups: list[int]
    regions: list[int]
    right_regions: list[int]
    right_phrases: list[int]
    rows: dict[str, int]
    losses: dict[str, float]
    embeddings: tuple[Tensor, Tensor, Tensor] | None
    ids: tuple[Tensor, Tensor] | None
    counts: Counter[str]


@torch.inference_mode()
def _evaluate_part(
    model: FGCLIP, found: Sequence[Found], counts: Counter[str], losses_of: LossesOf | None, batch_size: int
) -> _Part:
    if not found:
        return _Part([], [], [], [], [], [], {}, {}, None, None, counts)
    examples = [one.example for one in found]
    passes = [examples[i : i + batch_size] for i in range(0, len(examples), batch_size)]
    batches = [make_batch(own, model.tokenizer) for own in passes]
    for own, batch in zip(passes, batches, strict=True):
        count_texts(own, batch.texts, model.tokenizer, counts)
    e = join([model(batch.to(model.device)) for batch in batches])
    groups, right_groups = _choices_among_negatives(e, examples)
    regions, right_regions, right_phrases = _choices_in_image(e, [len(example.boxes) for example in examples])
    # A group of one text has nothing to choose from, so the loss leaves it out too.
    asked = int((e.hard_offsets.diff() > 1).sum())
    rows = {"short": len(found), "long": len(found), "region": len(e.regions), "hard_negative": asked}
    terms = None if losses_of is None else losses_of(e)
    losses = {} if terms is None else {name: float(terms[name]) for name in rows}
    embeddings = (_unit(e.image).cpu(), _unit(e.short).cpu(), _unit(e.long).cpu())
    names = [one.name for one in found]
    choices = groups, right_groups, regions, right_regions, right_phrases
    ids = (e.short_ids.cpu(), e.long_ids.cpu())
    return _Part(names, *choices, rows, losses, embeddings, ids, counts)


def _choices_among_negatives(e: Embeddings, examples: Sequence[Example]) -> tuple[list[int], list[int]]:
    """For each image, its regions with negatives, and those whose own text is the nearest."""
    scores = hard_negative_scores(e.regions.index_select(0, e.hard_region), e.hard_texts, e.hard_offsets)
    asked = [sum(bool(group) for group in example.hard_texts) for example in examples]
    return asked, [int(right.sum()) for right in scores.correct.cpu().split(asked)]


def _choices_in_image(e: Embeddings, counts: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """For each image, its regions; those whose nearest text of the image is their own, or equal to it; and the texts
    whose nearest region of the image is their own, or has an equal text.

    The only region of an image has no other to be taken for, so it is left out.
    """
    asked, right_regions, right_phrases = [], [], []
    columns = (_unit(e.regions), _unit(e.region_texts), e.region_ids)
    for own, text, same in zip(*(x.split(list(counts)) for x in columns), strict=True):
        several = len(own) > 1
        cosines = own @ text.T
        asked.append(len(own) if several else 0)
        right_regions.append(int((same[cosines.argmax(dim=1)] == same).sum()) if several else 0)
        right_phrases.append(int((same[cosines.argmax(dim=0)] == same).sum()) if several else 0)
    return asked, right_regions, right_phrases


def _figures(parts: Sequence[_Part], *, weights: Loss, counts: Counter[str]) -> Figures:
    """Shares, mean losses and counts over all parts, with the outcome of each image."""
    for part in parts:
        counts.update(part.counts)
    names = [name for part in parts for name in part.names]
    values: dict[str, Any] = {"images": len(names), **_mean_losses(parts, asdict(weights))}
    outcomes: Outcomes = {}
    groups, right_groups, regions, right_regions, right_phrases = (
        [n for part in parts for n in getattr(part, field)]
        for field in ("groups", "right_groups", "regions", "right_regions", "right_phrases")
    )
    if asked := sum(groups):
        values["hard_negative_top1"] = sum(right_groups) / asked
        values["hard_negative_interval"] = list(interval(sum(right_groups), asked))
        values["hard_negative_groups"] = asked
        outcomes["hard_negative_top1"] = by_image(names, right_groups, groups)
    if asked := sum(regions):
        values["region_top1_in_image"] = sum(right_regions) / asked
        values["phrase_top1_in_image"] = sum(right_phrases) / asked
        values["in_image_chance"] = sum(n > 0 for n in regions) / asked
        values["regions"] = asked
        outcomes["region_top1_in_image"] = by_image(names, right_regions, regions)
        outcomes["phrase_top1_in_image"] = by_image(names, right_phrases, regions)
    if len(names) > 1:
        columns = zip(*(part.embeddings for part in parts if part.embeddings is not None), strict=True)
        image, short, long = (torch.cat(column) for column in columns)
        short_ids, long_ids = map(torch.cat, zip(*(part.ids for part in parts if part.ids is not None), strict=True))
        for kind, text, ids in (("short", short, short_ids), ("long", long, long_ids)):
            for way, (queries, answers) in {"image_to_text": (image, text), "text_to_image": (text, image)}.items():
                for k, hits in zip(RECALLS, hits_at(queries, answers, ids, RECALLS), strict=True):
                    name = f"{kind}_{way}_r@{k}"
                    values[name] = hits.float().mean().item()
                    outcomes[name] = by_image(names, hits.int().tolist(), [1] * len(names))
    skipped = {cause: count for cause, count in sorted(counts.items()) if cause not in FILLED}
    return Figures(values=values, asked=len(names), skipped=skipped, outcomes=outcomes)


def _mean_losses(parts: Sequence[_Part], weights: Mapping[str, Any]) -> dict[str, float]:
    """Mean of each term over its rows, and their weighted sum."""
    names = next((list(part.losses) for part in parts if part.losses), [])
    terms = {}
    for name in names:
        rows = sum(part.rows[name] for part in parts if part.losses)
        total = sum(part.losses[name] * part.rows[name] for part in parts if part.losses)
        terms[name] = total / rows if rows else 0.0
    if not terms:
        return {}
    return {
        "loss_total": sum(weights[name] * value for name, value in terms.items()),
        **{f"loss_{name}": value for name, value in terms.items()},
    }


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=-1)
