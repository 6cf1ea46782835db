"""FG-OVD: choose the text that fits a box among near-identical negatives (arXiv 2311.17518).

A file holds one JSON object a line: ``img_path``, ``bbox`` (x, y, width, height in pixels), ``pos_expression`` (one
text), ``neg_expression`` (texts), and ``width`` and ``height`` of the image. A text's score is its cosine with the
region. A negative that ties with the right text does not beat it, as in the script released with FG-CLIP.
The official ``.json`` files are read too (fg_ovd_json.py).
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fgclip_fast.data.causes import Defect
from fgclip_fast.data.negatives import distinct
from fgclip_fast.evaluation import fg_ovd_json
from fgclip_fast.evaluation.asking import MISSING, Alone, Exam, Options, Picture, ask, regions as regions_of
from fgclip_fast.evaluation.embedding import embed_texts
from fgclip_fast.evaluation.figures import Figures, by_image, counted, origin
from fgclip_fast.evaluation.metrics import interval
from fgclip_fast.evaluation.pictures import Pictures
from fgclip_fast.evaluation.questions import Question
from fgclip_fast.evaluation.share import PART
from fgclip_fast.inputs.boxes import BadBox, Box, checked, corners, fractions
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops import hard_negative_scores

PROTOCOL = "FG-OVD as in FG-CLIP's script: cosine of a region with its texts, short path, no prompt; a tie is right"


class Line(NamedTuple):
    """One line of a file."""

    number: int
    """Counted from 0."""
    image: Path
    question: Question


@dataclass
class Answers:
    """A model's answers to the questions of one file.

    Attributes:
        lines: those that were asked.
        ranks: for each of them, the number of texts that score above the right one; 0 is a right answer.
        skipped: cause → questions that could not be asked.
        dropped: cause → negatives left out, since they say the same as the right text or another negative.
    """

    lines: list[Line] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def correct(self) -> int:
        """Number of right answers."""
        return self.ranks.count(0)

    @property
    def chance(self) -> float:
        """Expected share of right answers of a blind guess: the mean of 1 / (number of texts); 0 without questions."""
        return sum(1 / len(line.question.texts) for line in self.lines) / max(1, len(self.lines))

    def figures(self) -> Figures:
        """Top-1 accuracy with its 95 % interval, chance, and counts."""
        asked = len(self.lines)
        values = {
            "top1": self.correct / asked if asked else math.nan,
            "interval": list(interval(self.correct, asked)),
            "chance": self.chance,
            "questions": asked,
            "skipped": counted(self.skipped),
            "dropped": dict(sorted(self.dropped.items())),
        }
        images, right = [line.image.name for line in self.lines], [rank == 0 for rank in self.ranks]
        outcomes = {"top1": by_image(images, right, [1] * asked)}
        return Figures(values=values, asked=asked, skipped=counted(self.skipped), outcomes=outcomes, protocol=PROTOCOL)


def exam(model: FGCLIP, path: Path, options: Options) -> Exam:
    """Top-1 accuracy among the texts of each question.

    Args:
        model: the model, on its device.
        path: file in FG-OVD's format.
        options: ``images`` is the folder that image paths are relative to, None the current one; ``limit`` counts
            questions.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: a ``.json`` file that is not in the official layout.
    """
    # The current folder may be anything, so it is not searched.
    files = Pictures([options.images or Path()], by_name=options.images is not None)
    return _exam(model, path, options, files, lambda found: replace(found.figures(), data=origin(path, files)))


evaluate = Alone(exam, ("images",), dense=True)
"""Evaluate a model by this suite alone."""


def answer(model: FGCLIP, path: Path, images: Path, *, batch_size: int = PART, limit: int | None = None) -> Answers:
    """Ask a model the questions of a file in this process and keep each answer.

    Args:
        model: the model, on its device.
        path: file in FG-OVD's format.
        images: folder that image paths are relative to.
        batch_size: images a forward pass, up to :data:`~fgclip_fast.evaluation.share.PART`.
        limit: ask only the first ``limit`` questions; None asks all.

    Raises:
        OSError, ValueError: as of :func:`exam`.
    """
    options = Options(images=images, batch_size=batch_size, limit=limit)
    kept: list[Answers] = []

    def keep(answers: Answers) -> Figures:
        kept.append(answers)
        return answers.figures()

    ask(model, {"": _exam(model, path, options, Pictures([images]), keep)}, options)
    return kept[0]


def _exam(model: FGCLIP, path: Path, options: Options, files: Pictures, finish: Callable[[Answers], Figures]) -> Exam:
    answers = Answers()
    lines: list[Line] = []
    for line in islice(read(path, Path(), answers.skipped, answers.dropped), options.limit):
        if (image := files.find(str(line.image))) is None:
            answers.skipped[MISSING] += 1
        else:
            lines.append(line._replace(image=image))
    lines.sort(key=lambda line: str(line.image))
    texts = sorted({text for line in lines for text in line.question.texts})
    rows = embed_texts(model, texts, "short", options)
    place = {text: row for row, text in enumerate(texts)}
    boxes: dict[Picture, list[Box]] = {}
    for line in lines:
        boxes.setdefault(line.image, []).append(line.question.box)

    def figures(seen: dict[Picture, Tensor]) -> Figures:
        answers.lines = [line for line in lines if line.image in seen]
        answers.skipped[MISSING] += len(lines) - len(answers.lines)
        regions = torch.cat([torch.empty(0, rows.shape[1]), *(seen[image] for image in boxes if image in seen)])
        groups = [[place[text] for text in line.question.texts] for line in answers.lines]
        answers.ranks = _ranks(regions, rows, groups)
        return finish(answers)

    return Exam(pictures=boxes, answer=regions_of, figures=figures)


def _ranks(regions: Tensor, texts: Tensor, groups: Sequence[Sequence[int]]) -> list[int]:
    """The number of texts of each group that score above its first one; a thousand groups at a time."""
    ranks: list[int] = []
    for start in range(0, len(groups), 1000):
        own = groups[start : start + 1000]
        sizes = torch.tensor([0, *map(len, own)])
        flat = torch.tensor([row for group in own for row in group])
        found = hard_negative_scores(regions[start : start + 1000], texts.index_select(0, flat), sizes.cumsum(0))
        ranks += found.rank.tolist()
    return ranks


def read(path: Path, images: Path, skipped: Counter[str], dropped: Counter[str] | None = None) -> Iterator[Line]:
    """Read the questions of a file.

    Args:
        path: file in FG-OVD's format.
        images: folder that ``img_path`` is relative to.
        skipped: counts, by cause, the lines that hold no usable question.
        dropped: counts, by cause, the negatives of usable questions that say the same as another of their texts.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: a ``.json`` file that is not in the official layout.
    """
    official = path.suffix == ".json"
    with path.open("rb") as lines:
        for number, line in enumerate(fg_ovd_json.records(path) if official else lines):
            try:
                # Lines are read as bytes, so that invalid UTF-8 costs its line and not the file.
                if isinstance(line, bytes) and not line.strip():
                    continue
                raw: Any = json.loads(line) if isinstance(line, bytes) else line
                question, defects = _question(raw)
                found = Line(number, images / raw["img_path"], question)
            except _Unaskable as error:
                skipped[str(error)] += 1
            except (KeyError, TypeError, ValueError, IndexError, ArithmeticError, RecursionError):
                skipped["malformed line"] += 1
            else:
                if dropped is not None:
                    dropped.update(defect.cause for defect in defects)
                yield found


class _Unaskable(ValueError):
    """A line without a usable question; the message is the cause that is counted."""


def _question(raw: dict[str, Any]) -> tuple[Question, list[Defect]]:
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
    kept, defects = distinct(texts[0], texts[1:])
    if not kept:
        raise _Unaskable("no negatives")
    return Question(box, (texts[0], *kept)), defects
