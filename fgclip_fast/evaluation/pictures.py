"""Pictures of a validation set, what is asked about their boxes, and what a model makes of both: for people to see."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip_fast.data.causes import BadRecord
from fgclip_fast.data.decode import decode
from fgclip_fast.data.index import extent
from fgclip_fast.data.records import parse_sample
from fgclip_fast.data.shards import Shards, expand
from fgclip_fast.evaluation import fg_ovd
from fgclip_fast.model.fgclip import FGCLIP


class Asked(NamedTuple):
    """A box, xyxy as fractions of the picture, and its texts: the right one, then its negatives, if any."""

    box: tuple[float, float, float, float]
    texts: tuple[str, ...]
    unseen: bool | None = None
    """Whether no training text tells of such a thing; None where that is not known."""


class Picture(NamedTuple):
    """An encoded image and what can be asked about it."""

    name: str
    encoded: bytes
    asked: tuple[Asked, ...]
    caption: str = ""


class View(NamedTuple):
    """What a model makes of a picture.

    Attributes:
        picture: what was looked at.
        patches: Tensor[G * G, D], fp32, unit rows.
        regions: Tensor[n, D], fp32, unit rows, one a question.
        scores: for each question, the cosine of its region and each of its texts.
    """

    picture: Picture
    patches: Tensor
    regions: Tensor
    scores: list[list[float]]

    def first(self, question: int) -> int:
        """Which text of a question scores highest; the right one where it ties, as the evaluation counts."""
        scores = self.scores[question]
        return scores.index(max(scores))


def of_levels(folder: Path, count: int, level: str = "hard") -> list[Picture]:
    """Pictures spread evenly over the embedded set's questions of one level, seen and unseen ones together.

    Args:
        folder: holds ``seen/``, ``unseen/`` and ``images/``.
        count: how many pictures.
        level: name of a file in both.
    """
    found: list[tuple[Path, Asked]] = []
    for kind in ("unseen", "seen"):
        path = folder / kind / f"{level}.jsonl"
        questions = fg_ovd.read(path, folder / "images", Counter()) if path.is_file() else ()
        found += [(q.image, Asked(q.box, q.texts, kind == "unseen")) for q in questions]
    found.sort(key=lambda pair: str(pair[0]))
    by_image = [(path, tuple(asked for _, asked in group)) for path, group in groupby(found, lambda pair: pair[0])]
    chosen = [by_image[i] for i in spread(len(by_image), count)]
    return [Picture(path.stem, path.read_bytes(), asked) for path, asked in chosen if path.is_file()]


def of_shards(pattern: str, count: int) -> list[Picture]:
    """Pictures spread evenly over validation shards, those with regions if there are any; bad ones are passed over."""
    paths = expand(pattern)
    shards = Shards(paths)
    places = [(shard, i) for shard, path in enumerate(paths) for i in range(extent(path).samples)]
    found = []
    for at in spread(len(places), 2 * count):
        try:
            sample = shards.read(*places[at])
            encoded, record = parse_sample(sample.parts)
            decode(encoded, 8)
        except BadRecord:
            continue
        asked = tuple(Asked(region.box, (region.short, *region.negatives)) for region in record.regions)
        found.append(Picture(sample.key, encoded, asked, record.short))
    boxed = [picture for picture in found if picture.asked] or found
    return [boxed[i] for i in spread(len(boxed), count)]


@torch.inference_mode()
def look(model: FGCLIP, pictures: Sequence[Picture], batch_size: int = 32) -> list[View]:
    """Embeds pictures, their patches and boxes, and scores the texts that are asked of each box."""
    views: list[View] = []
    for start in range(0, len(pictures), batch_size):
        views += _look(model, pictures[start : start + batch_size])
    return views


def _look(model: FGCLIP, pictures: Sequence[Picture]) -> list[View]:
    size = model.config.vision.image_size
    pixels = torch.stack([decode(picture.encoded, size) for picture in pictures])
    boxes = [torch.tensor([a.box for a in p.asked], dtype=torch.float32).reshape(-1, 4) for p in pictures]
    patches = F.normalize(model.encode_dense(pixels).float(), dim=-1).flatten(1, 2).cpu()
    counts = [len(b) for b in boxes]
    regions = F.normalize(model.encode_regions(pixels, boxes, unit="fraction").float(), dim=-1).cpu().split(counts)
    texts = [list(asked.texts) for picture in pictures for asked in picture.asked]
    embedded = iter(_encode(model, [text for group in texts for text in group]).split([len(group) for group in texts]))
    scores = [[(next(embedded) @ region).tolist() for region in own] for own in regions]
    return [View(*parts) for parts in zip(pictures, patches, regions, scores, strict=True)]


def _encode(model: FGCLIP, texts: list[str]) -> Tensor:
    if not texts:
        return torch.empty(0, model.config.projection)
    return F.normalize(model.encode_text(texts).float(), dim=-1).cpu()


def spread(total: int, count: int) -> list[int]:
    """``count`` places spread evenly over ``total``; all of them where there are fewer."""
    return list(range(total)) if total <= count else [i * total // count for i in range(count)]


def hottest(patches: Tensor, phrase: Tensor) -> tuple[float, float]:
    """Centre (x, y), as fractions, of the patch that is nearest to a phrase.

    Args:
        patches: Tensor[G * G, D], unit rows.
        phrase: Tensor[D].
    """
    grid = round(len(patches) ** 0.5)
    row, column = divmod(int((patches @ phrase).argmax()), grid)
    return (column + 0.5) / grid, (row + 0.5) / grid


def inside(point: tuple[float, float], box: Sequence[float]) -> bool:
    """Whether a point lies in an xyxy box."""
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
