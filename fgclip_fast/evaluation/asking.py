"""Ask a model the questions of several suites at once: each picture is decoded once and seen in one pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.evaluation.share import PART, Share, parts_of
from fgclip_fast.evaluation.text_rows import TextRows
from fgclip_fast.evaluation.threads import ahead
from fgclip_fast.inputs.boxes import Box
from fgclip_fast.inputs.image import read
from fgclip_fast.model.fgclip import FGCLIP, Kind

MISSING = "missing or unreadable image"
"""The cause of what cannot be asked for want of its image."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How questions are asked. Each suite reads what it needs.

    Attributes:
        images: folder of the images; None is the one of the questions.
        root: folder of several data sets, where images are sought too.
        classes: file of class names; None is the data set's.
        templates: file of templates for class names; None is OpenAI's 80.
        kind: the text path of captions; None is that of each protocol.
        proposals: file of boxes to be named; None is the annotated ones.
        background: share of the softmax below which a pixel is of the first class; None is that of the protocol.
        batch_size: images a forward pass, up to :data:`~fgclip_fast.evaluation.share.PART`.
        limit: questions or records at most, for each file; None is all.
        share: the processes that divide the work; each must ask the same.
        texts: embeddings of texts that the model made before.
    """

    images: Path | None = None
    root: Path | None = None
    classes: Path | None = None
    templates: Path | None = None
    kind: Kind | None = None
    proposals: Path | None = None
    background: float | None = None
    batch_size: int = PART
    limit: int | None = None
    share: Share = field(default_factory=Share)
    texts: TextRows = field(default_factory=TextRows)


class Crop(NamedTuple):
    """A part of an image."""

    path: Path
    box: tuple[int, int, int, int]
    """x1, y1, x2, y2 in pixels; what lies outside the image is black."""


Picture = Path | Crop
"""An image to embed."""


class Seen(NamedTuple):
    """What a model sees in a picture: fp32 unit rows on the CPU."""

    image: Tensor
    """Tensor[D]."""
    regions: Tensor
    """Tensor[n, D], one for each box."""


@dataclass(frozen=True, kw_only=True)
class Exam:
    """What a suite asks about some pictures, and what it makes of the answers.

    Attributes:
        pictures: picture → the boxes that are asked about, xyxy as fractions; none where the whole is asked about.
        answer: of a picture and what is seen in it, in the process that saw it; the result goes to the first process.
        figures: of picture → answer, in the first process. Pictures that cannot be read are not there.
    """

    pictures: Mapping[Picture, Sequence[Box]]
    answer: Callable[[Picture, Seen], Any]
    figures: Callable[[dict[Picture, Any]], Figures]


def whole(_: Picture, seen: Seen) -> Tensor:
    """The answer that is the embedding of the picture."""
    return seen.image


def regions(_: Picture, seen: Seen) -> Tensor:
    """The answer that is the embeddings of the boxes."""
    return seen.regions


@torch.inference_mode()
def ask(model: FGCLIP, exams: Mapping[str, Exam], options: Options) -> dict[str, Figures]:
    """Ask a model several exams together.

    The pictures of all exams are sorted and cut into parts, which the processes share. Each picture is decoded once,
    in threads and ahead of the model, and one forward pass gives the embeddings of it and of all boxes in it.

    Args:
        model: the model, on its device.
        exams: name → exam, the same in all processes.
        options: batch size and processes.

    Returns:
        name → figures, in every process.
    """
    wanted: dict[Picture, dict[str, Sequence[Box]]] = {}
    for name, exam in exams.items():
        for picture, boxes in exam.pictures.items():
            wanted.setdefault(picture, {})[name] = boxes
    pictures = sorted(wanted, key=str)
    parts = parts_of(len(pictures))
    decoded = decode_ahead(model, [pictures[part.start : part.stop] for part in options.share.mine(parts)])

    def work(part: range) -> list[tuple[str, Picture, Any]]:
        pairs = zip(pictures[part.start : part.stop], next(decoded), strict=True)
        good = [(picture, pixels) for picture, pixels in pairs if pixels is not None]
        found: list[tuple[str, Picture, Any]] = []
        for start in range(0, len(good), options.batch_size):
            own = good[start : start + options.batch_size]
            boxes = [[box for one in wanted[picture].values() for box in one] for picture, _ in own]
            for (picture, _), seen in zip(own, look(model, [pixels for _, pixels in own], boxes), strict=True):
                counts = [len(one) for one in wanted[picture].values()]
                for name, rows in zip(wanted[picture], seen.regions.split(counts), strict=True):
                    found.append((name, picture, exams[name].answer(picture, Seen(seen.image, rows))))
        return found

    def figures(results: list[list[tuple[str, Picture, Any]]]) -> dict[str, Figures]:
        answers: dict[str, dict[Picture, Any]] = {name: {} for name in exams}
        for name, picture, answer in (one for result in results for one in result):
            answers[name][picture] = answer
        return {name: exam.figures(answers[name]) for name, exam in exams.items()}

    return options.share.measure(parts, work, figures, "images")


def look(model: FGCLIP, pixels: Sequence[Tensor], boxes: Sequence[Sequence[Box]]) -> list[Seen]:
    """Embed pictures and boxes in them, in one pass.

    Args:
        model: the model, on its device.
        pixels: uint8 Tensor[3, S, S] each.
        boxes: of each picture, xyxy as fractions.
    """
    sides = [torch.tensor(own, dtype=torch.float32).reshape(-1, 4) for own in boxes]
    found = model.encode_image_and_regions(torch.stack([*pixels]), sides, unit="fraction")
    images, rows = (F.normalize(one.float(), dim=-1).cpu() for one in found)
    return [Seen(*one) for one in zip(images, rows.split([len(own) for own in boxes]), strict=True)]


def decode_ahead(model: FGCLIP, parts: Sequence[Sequence[Picture]]) -> Iterator[list[Tensor | None]]:
    """Decode pictures in threads, a few parts before they are taken.

    Returns:
        For each part, uint8 Tensor[3, S, S] of each picture; None for one that cannot be read.
    """

    def one(picture: Picture) -> Tensor | None:
        try:
            if isinstance(picture, Crop):
                return model.transform(read(picture.path).crop(picture.box))
            return model.transform(picture)
        except (OSError, ValueError):
            return None

    return ahead(parts, one)


@dataclass(frozen=True)
class Alone:
    """Evaluates a model by one suite, without the others.

    Attributes:
        exam: makes the exam of a file or folder of questions, or the figures themselves where a suite asks otherwise.
        reads: the fields of :class:`Options` that it reads, beside batch size, limit, share, texts and root.
        dense: whether it asks about parts of images.
    """

    exam: Callable[[FGCLIP, Path, Options], Exam | Figures]
    reads: tuple[str, ...] = ()
    dense: bool = False

    def __call__(self, model: FGCLIP, path: Path, images: Path | None = None, **options: Any) -> Figures:
        """Evaluate a model.

        Args:
            model: the model, on its device.
            path: the questions, as the suite's ``exam`` describes them.
            images: folder of the images; None is the one of the questions.
            options: fields of :class:`Options`.

        Raises:
            TypeError: an option that the suite does not read.
            ValueError: the questions have no known layout, or the options do not fit them.
            OSError: a file or folder does not exist or cannot be read.
        """
        given = {**options, **({} if images is None else {"images": images})}
        common = {"batch_size", "limit", "share", "texts", "root"}
        if unread := [name for name in given if name not in common | {*self.reads}]:
            raise TypeError(f"evaluate: this suite reads {', '.join(sorted(common | {*self.reads}))}, got {unread[0]}")
        chosen = Options(**given)
        found = self.exam(model, path, chosen)
        return found if isinstance(found, Figures) else ask(model, {"": found}, chosen)[""]
