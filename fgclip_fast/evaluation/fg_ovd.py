"""FG-OVD: which of a right text and its near-identical negatives fits a box (arXiv 2311.17518; protocol: spec 8).

A file holds one JSON object a line: ``img_path``, ``bbox`` (x, y, w, h in pixels), ``pos_expression`` (one text),
``neg_expression`` (texts), ``width`` and ``height``. The score is the cosine of the region and each text; a tie with
the right text counts as right, as in the released script.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fgclip_fast.evaluation.metrics import interval
from fgclip_fast.inputs.boxes import BadBox, Box, checked, corners, fractions
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops import hard_negative_scores


class Question(NamedTuple):
    """One line of a file: an image, a box (xyxy, fractions) and its texts, the first being right."""

    image: Path
    box: Box
    texts: tuple[str, ...]
    line: int


@dataclass
class Answers:
    """What a model made of one file.

    Attributes:
        correct, total: questions answered rightly, and all that could be asked.
        chance: mean of 1 / (number of texts).
        skipped: questions that could not be asked, by cause.
        ranks: line number → how many texts score above the right one.
    """

    correct: int = 0
    total: int = 0
    chance: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)
    ranks: dict[int, int] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Top-1 accuracy with its 95 % interval, chance and counts, for a table or JSON."""
        low, high = interval(self.correct, self.total)
        top1 = self.correct / self.total if self.total else math.nan
        return {
            "top1": top1,
            "interval": [low, high],
            "chance": self.chance,
            "questions": self.total,
            "skipped": dict(self.skipped),
        }


def read(path: Path, images: Path, skipped: Counter[str]) -> Iterator[Question]:
    """The questions of a file; a line that cannot be asked is counted by cause in ``skipped``.

    Raises:
        OSError: no such file.
    """
    with path.open("rb") as lines:  # as bytes: one that is no UTF-8 spoils its line, not the file
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                yield _question(json.loads(line), images, number)
            except _Unaskable as error:
                skipped[str(error)] += 1
            except (KeyError, TypeError, ValueError, IndexError, ArithmeticError, RecursionError):
                skipped["malformed line"] += 1


@torch.inference_mode()
def evaluate(model: FGCLIP, path: Path, images: Path, *, batch_size: int = 32, limit: int | None = None) -> Answers:
    """Asks a model all questions of a file.

    Args:
        model: the model, on its device.
        path: file in FG-OVD's format.
        images: folder that ``img_path`` is relative to.
        batch_size: images a pass.
        limit: ask only the first so many questions.
    """
    answers = Answers()
    questions = list(islice(read(path, images, answers.skipped), limit))
    by_image = [list(group) for _, group in groupby(sorted(questions, key=lambda q: str(q.image)), lambda q: q.image)]
    share = 0.0
    for start in range(0, len(by_image), batch_size):
        share += _ask(model, by_image[start : start + batch_size], answers)
    answers.chance = share / max(1, answers.total)
    return answers


class _Unaskable(ValueError):
    """Its message is the cause that is counted."""


def _question(raw: dict[str, Any], images: Path, line: int) -> Question:
    box = corners([float(side) for side in raw["bbox"][:4]])
    try:
        box = checked(fractions(box, float(raw["width"]), float(raw["height"])))
    except BadBox as bad:
        raise _Unaskable(bad.reason) from None
    positive, negatives = raw["pos_expression"], raw["neg_expression"]
    texts = (positive if isinstance(positive, str) else positive[0], *negatives)
    if len(texts) < 2:
        raise _Unaskable("no negatives")
    if isinstance(negatives, str) or not all(isinstance(text, str) for text in texts):
        raise _Unaskable("text of a wrong type")
    return Question(images / raw["img_path"], box, texts, line)


def _ask(model: FGCLIP, groups: Sequence[list[Question]], answers: Answers) -> float:
    """Answers the questions of some images; returns the sum of their chances."""
    pixels, askable = [], []
    for group in groups:
        try:
            pixels.append(model.transform(group[0].image))
            askable.append(group)
        except (OSError, ValueError):
            answers.skipped["missing or unreadable image"] += len(group)
    if not askable:
        return 0.0
    questions = [q for group in askable for q in group]
    boxes = [torch.tensor([q.box for q in group]) for group in askable]
    regions = model.encode_regions(torch.stack(pixels), boxes, unit="fraction")
    texts = model.encode_text([text for q in questions for text in q.texts])
    sizes = torch.tensor([0] + [len(q.texts) for q in questions], device=regions.device)
    scores = hard_negative_scores(regions, texts, sizes.cumsum(0))
    answers.total += len(questions)
    answers.correct += int(scores.correct.sum())
    answers.ranks.update(zip((q.line for q in questions), scores.rank.tolist(), strict=True))
    return sum(1 / len(q.texts) for q in questions)
