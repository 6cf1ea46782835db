"""A model's view of validation images: embeddings of their patches and boxes, and scores of the boxes' texts."""

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
from fgclip_fast.data.records import parse_sample
from fgclip_fast.data.shards import Shards, addresses_in, expand
from fgclip_fast.evaluation import fg_ovd
from fgclip_fast.evaluation.questions import Question
from fgclip_fast.model.fgclip import FGCLIP


class ValidationImage(NamedTuple):
    """An encoded image and the questions about its boxes."""

    name: str
    encoded: bytes
    """The image file."""
    questions: tuple[Question, ...]
    caption: str = ""


class View(NamedTuple):
    """A model's embeddings of one image and its answers to the questions.

    Attributes:
        image: the image that was embedded.
        patches: Tensor[G * G, D], fp32, unit rows, row by row of the patch grid.
        regions: Tensor[n, D], fp32, unit rows, one for each question.
        scores: for each question, the cosine of its region with each of its texts.
    """

    image: ValidationImage
    patches: Tensor
    regions: Tensor
    scores: list[list[float]]

    def best(self, question: int) -> int:
        """Index of the text with the highest score; a tie goes to the right text, as in the evaluation."""
        scores = self.scores[question]
        return scores.index(max(scores))


def images_of_levels(folder: Path, count: int, level: str = "hard") -> list[ValidationImage]:
    """Choose images spread evenly over one level of the embedded set, with unseen and seen questions together.

    Args:
        folder: holds ``seen/``, ``unseen/`` and ``images/``.
        count: number of images; all where there are fewer.
        level: name of a file in ``seen/`` and ``unseen/``, without suffix.
    """
    found: list[tuple[Path, Question]] = []
    for kind in ("unseen", "seen"):
        path = folder / kind / f"{level}.jsonl"
        lines = fg_ovd.read(path, folder / "images", Counter()) if path.is_file() else ()
        found += [(line.image, line.question._replace(unseen=kind == "unseen")) for line in lines]
    found.sort(key=lambda pair: str(pair[0]))
    groups = groupby(found, lambda pair: pair[0])
    by_image = [(path, tuple(question for _, question in group)) for path, group in groups]
    chosen = [by_image[i] for i in spread_evenly(len(by_image), count)]
    return [ValidationImage(path.stem, path.read_bytes(), questions) for path, questions in chosen if path.is_file()]


def images_of_shards(pattern: str, count: int) -> list[ValidationImage]:
    """Choose images spread evenly over validation shards; those without regions only if no image has regions.

    Args:
        pattern: shards, as :func:`~fgclip_fast.data.shards.expand` takes them; bad samples are passed over.
        count: number of images; all where there are fewer.

    Raises:
        OSError: the pattern matches no file, or a shard cannot be read.
    """
    paths = expand(pattern)
    shards = Shards(paths)
    addresses = addresses_in(paths)
    found = []
    for i in spread_evenly(len(addresses), 2 * count):
        try:
            sample = shards.read(*addresses[i])
            encoded, record = parse_sample(sample.parts)
            decode(encoded, 8)
        except BadRecord:
            continue
        questions = tuple(Question(region.box, (region.short, *region.negatives)) for region in record.regions)
        found.append(ValidationImage(sample.key, encoded, questions, record.short))
    found = [image for image in found if image.questions] or found
    return [found[i] for i in spread_evenly(len(found), count)]


@torch.inference_mode()
def view(model: FGCLIP, images: Sequence[ValidationImage], batch_size: int = 32) -> list[View]:
    """Embed images, their patches and boxes, and score the texts of each box.

    Args:
        model: the model, on its device.
        images: images of any size.
        batch_size: images a forward pass.
    """
    views: list[View] = []
    for start in range(0, len(images), batch_size):
        views += _view_batch(model, images[start : start + batch_size])
    return views


def _view_batch(model: FGCLIP, images: Sequence[ValidationImage]) -> list[View]:
    size = model.config.vision.image_size
    pixels = torch.stack([decode(image.encoded, size) for image in images])
    boxes = [torch.tensor([q.box for q in image.questions], dtype=torch.float32).reshape(-1, 4) for image in images]
    patches = F.normalize(model.encode_dense(pixels).float(), dim=-1).flatten(1, 2).cpu()
    counts = [len(b) for b in boxes]
    regions = F.normalize(model.encode_regions(pixels, boxes, unit="fraction").float(), dim=-1).cpu().split(counts)
    groups = [question.texts for image in images for question in image.questions]
    texts = iter(_unit_texts(model, [text for group in groups for text in group]).split([len(g) for g in groups]))
    scores = [[(next(texts) @ region).tolist() for region in own] for own in regions]
    return [View(*parts) for parts in zip(images, patches, regions, scores, strict=True)]


def _unit_texts(model: FGCLIP, texts: list[str]) -> Tensor:
    if not texts:
        return torch.empty(0, model.config.projection)
    return F.normalize(model.encode_text(texts).float(), dim=-1).cpu()


def spread_evenly(total: int, count: int) -> list[int]:
    """Choose ``count`` indices spread evenly over ``range(total)``; all of them where ``total`` is smaller."""
    return list(range(total)) if total <= count else [i * total // count for i in range(count)]


def brightest_patch(patches: Tensor, phrase: Tensor) -> tuple[float, float]:
    """Find the patch with the highest cosine to a phrase.

    Args:
        patches: Tensor[G * G, D], unit rows.
        phrase: Tensor[D].

    Returns:
        The centre (x, y) of the patch, as fractions of the image.
    """
    grid = round(len(patches) ** 0.5)
    row, column = divmod(int((patches @ phrase).argmax()), grid)
    return (column + 0.5) / grid, (row + 0.5) / grid


def contains(box: Sequence[float], point: tuple[float, float]) -> bool:
    """Tell whether an xyxy box contains a point (x, y)."""
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
