"""The table of evaluation suites, for ``fgclip evaluate``, for training and for the report.

A new suite is a file in ``evaluation/`` and a row of :data:`SUITES` (docs/add-a-suite.md).
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fgclip_fast.config import Data, Loss
from fgclip_fast.evaluation import (
    boxes,
    compositional,
    fg_ovd,
    ov_coco,
    published,
    records,
    region_retrieval,
    retrieval,
    segmentation,
    zero_shot,
)
from fgclip_fast.evaluation.asking import Alone, Exam, Options, ask
from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.evaluation.text_rows import TextRows
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.scenes.locate import Source, embedded
from fgclip_fast.training.objective import objective

log = logging.getLogger("fgclip_fast")


@dataclass(frozen=True, kw_only=True)
class Task(Options):
    """The data of an evaluation, and how questions are asked; each suite reads what it needs.

    Attributes:
        data: its ``val`` names validation shards; prefix, regions and negatives are those of the config.
        loss: weights of the training objective, for validation losses; None leaves the losses out.
        questions: file of questions, or folder of such files or of public data sets.
        several: True if ``questions`` is a folder for several suites, of which each takes what it finds.
    """

    data: Data
    loss: Loss | None = None
    questions: Path | None = None
    several: bool = False


class Suite(NamedTuple):
    """One row of the table."""

    purpose: str
    """For ``--help``."""
    options: tuple[str, ...]
    """Options of ``fgclip evaluate`` that this suite reads and not every other."""
    exams: Callable[[FGCLIP, Task], dict[str, Exam | Figures]]
    """Gives a name → what it asks about images, or its figures where it asks otherwise; raises ValueError or OSError
    if the task lacks what the suite needs."""
    dense: bool = False
    """True if it asks about parts of images."""


def of_run(source: Source) -> list[str]:
    """Names of the suites by which a run is evaluated at its end."""
    return ["records"] * bool(source.data.val) + ["levels"] * (source.levels is not None)


def during_training(source: Source) -> list[str]:
    """Names of the suites by which a run is evaluated every ``eval_every`` steps."""
    return ["records"] * bool(source.data.val)


def general(folder: Path) -> list[str]:
    """Names of the suites that find a public data set in a folder.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: it holds no public data set.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"forgetting must be an existing folder, got {folder}")
    names = [name for name in SUITES if published.find(name, folder, only_public=True)[0]]
    if not names:
        raise ValueError(f"forgetting must be a folder of public data sets in their published layout, got {folder}")
    return names


def evaluate(model: FGCLIP, names: Iterable[str], task: Task, texts: TextRows | None = None) -> dict[str, Figures]:
    """Evaluate a model, in evaluation mode, by some suites; an image that several ask about is seen once.

    Args:
        model: the model, on its device.
        names: of the suites.
        task: the data, and how questions are asked; its ``texts`` are not used, since they may be of another model.
        texts: embeddings of texts that this very model made; None if there are none.

    Returns:
        name → figures. A suite of several files gives a name for each.

    Raises:
        ValueError: the task lacks what a suite needs.
        OSError: a file does not exist or cannot be read.
    """
    training, task = model.training, replace(task, texts=texts or TextRows())
    model.eval()
    try:
        exams = {name: exam for suite in names for name, exam in SUITES[suite].exams(model, task).items()}
        if task.several and not exams:
            raise ValueError(f"data must hold a public data set of one of the suites, {task.questions} holds none")
        found = ask(model, {name: exam for name, exam in exams.items() if isinstance(exam, Exam)}, task)
        return {name: exam if isinstance(exam, Figures) else found[name] for name, exam in exams.items()}
    finally:
        model.train(training)


def _records(model: FGCLIP, task: Task) -> dict[str, Exam | Figures]:
    if not task.data.val:
        raise ValueError("data: the run has no validation shards; name some by --data 'val-*.tar'")
    found = records.evaluate(
        model,
        task.data,
        losses_of=None if task.loss is None else partial(_losses, task.loss),
        weights=task.loss,
        batch_size=task.batch_size,
        limit=task.limit,
        share=task.share,
    )
    return {"records": found}


def _losses(weights: Loss, embeddings: Embeddings) -> dict[str, Tensor]:
    return objective(embeddings, weights)._asdict()


def _fg_ovd(model: FGCLIP, task: Task) -> dict[str, Exam | Figures]:
    path, images = task.questions, task.images
    if path is None:
        raise ValueError("data: --suite fg-ovd needs --data, a .jsonl file in FG-OVD's format or a folder of them")
    if task.several:
        files = [file for found in _sets("fg-ovd", task).values() for file in _fg_ovd_files(found.parent)]
        images = images or next((top for top in (path / "coco", path) if (top / "val2017").is_dir()), path)
    else:
        files = _fg_ovd_files(path) if path.is_dir() else [path] if path.is_file() else []
    if not files and not task.several:
        raise FileNotFoundError(f"data must be a .jsonl file or a folder of them, got {path}")
    if images is not None and not images.is_dir():
        raise FileNotFoundError(f"images must be an existing folder, got {images}")
    task = replace(task, images=images)
    return {f"fg-ovd/{file.stem}": fg_ovd.exam(model, file, task) for file in files}


def _fg_ovd_files(folder: Path) -> list[Path]:
    """The converted files of a folder, or else its official ones."""
    return sorted(folder.glob("*.jsonl")) or sorted(folder.glob("*.json"))


def _levels(model: FGCLIP, task: Task) -> dict[str, Exam | Figures]:
    folder = embedded() / "levels"
    files = [path for kind in ("unseen", "seen") for path in sorted((folder / kind).glob("*.jsonl"))]
    task = replace(task, images=folder / "images")
    return {f"{path.parent.name}/{path.stem}": fg_ovd.exam(model, path, task) for path in files}


def _public(suite: str, purpose: str, alone: Alone) -> Suite:
    """A suite of public data sets, of which each gives figures under its name.

    Args:
        suite: name of the suite.
        purpose: for ``--help``.
        alone: the suite's ``evaluate``.
    """

    def exams(model: FGCLIP, task: Task) -> dict[str, Exam | Figures]:
        task = replace(task, root=task.questions)
        return {f"{suite}/{name}": alone.exam(model, path, task) for name, path in _sets(suite, task).items()}

    options = ("text" if name == "kind" else name for name in alone.reads)
    return Suite(purpose, ("data", *options), exams, alone.dense)


def _sets(suite: str, task: Task) -> dict[str, Path]:
    """Data sets of a suite: name → questions. Those that are not there are logged."""
    if task.questions is None:
        raise ValueError(f"data: --suite {suite} needs --data, a file of questions or a folder of data sets")
    found, missing = published.find(suite, task.questions, only_public=task.several)
    for one in missing if task.share.first else ():
        _tell_missing(f"{suite}/{one.name}", task.questions, one.source, one.size)
    return found


@cache
def _tell_missing(name: str, folder: Path, source: str, size: str) -> None:
    """Once in a process, which may ask several models about one folder."""
    log.info("%s: not in %s; published at %s (%s)", name, folder, source, size)


SUITES = {
    "records": Suite("your own validation shards", ("data",), _records),
    "fg-ovd": Suite("files in FG-OVD's format", ("data", "images"), _fg_ovd, dense=True),
    "levels": Suite("the embedded set's questions, by difficulty", (), _levels, dense=True),
    "retrieval": _public(
        "retrieval", "captions of images and images of captions, recall at 1, 5 and 10", retrieval.evaluate
    ),
    "zero-shot": _public(
        "zero-shot", "images of classes, in a folder for each or as ImageNet's", zero_shot.evaluate
    ),
    "compositional": _public(
        "compositional", "the right caption against a changed one: SugarCrepe, ARO, Winoground", compositional.evaluate
    ),
    "region-retrieval": _public(
        "region-retrieval", "the box that a phrase means: RefCOCO, Flickr30k Entities", region_retrieval.evaluate
    ),
    "segmentation": _public(
        "segmentation", "the class of each pixel, from dense features: VOC, Context, ADE, or images and labels",
        segmentation.evaluate,
    ),
    "boxes": _public("boxes", "classes of given boxes, COCO's and LVIS's", boxes.evaluate),
    "ov-coco": _public(
        "ov-coco", "AP50 of COCO's 17 novel and 48 base classes, from given proposals", ov_coco.evaluate
    ),
}  # fmt: skip
