"""The table of evaluation suites, for ``fgclip evaluate``, for training and for the report.

A new suite is a file in ``evaluation/`` and a row of :data:`SUITES` (docs/add-a-suite.md).
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.evaluation.share import PART, Share
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.model.fgclip import FGCLIP, Kind
from fgclip_fast.scenes.locate import Source, embedded
from fgclip_fast.training.objective import objective

log = logging.getLogger("fgclip_fast")


@dataclass(frozen=True, kw_only=True)
class Task:
    """The data and settings of an evaluation; each suite reads what it needs.

    Attributes:
        data: its ``val`` names validation shards; prefix, regions and negatives are those of the config.
        loss: weights of the training objective, for validation losses; None leaves the losses out.
        questions: file of questions, or folder of such files or of public data sets.
        images: folder that the image paths of the questions are relative to; None is the one of the questions.
        classes: file of class names; None is the data set's.
        templates: file of templates for class names; None is OpenAI's 80.
        text: the text path of captions; None is that of each protocol.
        proposals: file of boxes to be named; None is the annotated ones.
        several: True if ``questions`` is a folder for several suites, of which each takes what it finds.
        batch_size: images a forward pass, at most.
        limit: questions or records at most, for each file; None is all.
        share: the processes that divide the work; each must evaluate by the same suites.
    """

    data: Data
    loss: Loss | None = None
    questions: Path | None = None
    images: Path | None = None
    classes: Path | None = None
    templates: Path | None = None
    text: Kind | None = None
    proposals: Path | None = None
    several: bool = False
    batch_size: int = PART
    limit: int | None = None
    share: Share = field(default_factory=Share)


class Suite(NamedTuple):
    """One row of the table."""

    purpose: str
    """For ``--help``."""
    options: tuple[str, ...]
    """Options of ``fgclip evaluate`` that this suite reads and not every other."""
    evaluate: Callable[[FGCLIP, Task], dict[str, Figures]]
    """Gives a name → its figures; raises ValueError or OSError if the task lacks what the suite needs."""
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


def evaluate(model: FGCLIP, names: Iterable[str], task: Task) -> dict[str, Figures]:
    """Evaluate a model, in evaluation mode, by some suites.

    Returns:
        name → figures. A suite of several files gives a name for each.

    Raises:
        ValueError: the task lacks what a suite needs.
        OSError: a file does not exist or cannot be read.
    """
    training = model.training
    model.eval()
    try:
        found = {name: figures for suite in names for name, figures in SUITES[suite].evaluate(model, task).items()}
        if task.several and not found:
            raise ValueError(f"data must hold a public data set of one of the suites, {task.questions} holds none")
        return found
    finally:
        model.train(training)


def _records(model: FGCLIP, task: Task) -> dict[str, Figures]:
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


def _fg_ovd(model: FGCLIP, task: Task) -> dict[str, Figures]:
    path, images = task.questions, task.images or Path()
    if path is None:
        raise ValueError("data: --suite fg-ovd needs --data, a .jsonl file in FG-OVD's format or a folder of them")
    if task.several:
        files = [file for found in _sets("fg-ovd", task).values() for file in _fg_ovd_files(found.parent)]
        images = task.images or next((top for top in (path / "coco", path) if (top / "val2017").is_dir()), path)
    else:
        files = _fg_ovd_files(path) if path.is_dir() else [path] if path.is_file() else []
    if not files and not task.several:
        raise FileNotFoundError(f"data must be a .jsonl file or a folder of them, got {path}")
    if not images.is_dir():
        raise FileNotFoundError(f"images must be an existing folder, got {images}")
    return {f"fg-ovd/{file.stem}": _ask(model, file, images, task) for file in files}


def _fg_ovd_files(folder: Path) -> list[Path]:
    """The converted files of a folder, or else its official ones."""
    return sorted(folder.glob("*.jsonl")) or sorted(folder.glob("*.json"))


def _levels(model: FGCLIP, task: Task) -> dict[str, Figures]:
    folder = embedded() / "levels"
    files = [path for kind in ("unseen", "seen") for path in sorted((folder / kind).glob("*.jsonl"))]
    return {f"{path.parent.name}/{path.stem}": _ask(model, path, folder / "images", task) for path in files}


def _ask(model: FGCLIP, file: Path, images: Path, task: Task) -> Figures:
    return fg_ovd.evaluate(model, file, images, batch_size=task.batch_size, limit=task.limit, share=task.share)


def _public(suite: str, purpose: str, ask: Callable[..., Figures], *reads: str, dense: bool = False) -> Suite:
    """A suite of public data sets, of which each gives figures under its name.

    Args:
        suite: name of the suite.
        purpose: for ``--help``.
        ask: the suite's ``evaluate``.
        reads: options beside ``data`` that it reads: "images", "classes", "templates", "text", "proposals".
        dense: True if it asks about parts of images.
    """

    def evaluate(model: FGCLIP, task: Task) -> dict[str, Figures]:
        options: dict[str, dict[str, Any]] = {
            "images": {"images": task.images, "root": task.questions},
            "classes": {"classes": task.classes},
            "templates": {"templates": task.templates},
            "text": {"kind": task.text},
            "proposals": {"proposals": task.proposals},
        }
        way: dict[str, Any] = {"batch_size": task.batch_size, "limit": task.limit, "share": task.share}
        for name in reads:
            way |= options[name]
        return {f"{suite}/{name}": ask(model, path, **way) for name, path in _sets(suite, task).items()}

    return Suite(purpose, ("data", *reads), evaluate, dense)


def _sets(suite: str, task: Task) -> dict[str, Path]:
    """Data sets of a suite: name → questions. Those that are not there are logged."""
    if task.questions is None:
        raise ValueError(f"data: --suite {suite} needs --data, a file of questions or a folder of data sets")
    found, missing = published.find(suite, task.questions, only_public=task.several)
    for one in missing if task.share.first else ():
        log.info("%s/%s: not in %s; published at %s", suite, one.name, task.questions, one.source)
    return found


SUITES = {
    "records": Suite("your own validation shards", ("data",), _records),
    "fg-ovd": Suite("files in FG-OVD's format", ("data", "images"), _fg_ovd, dense=True),
    "levels": Suite("the embedded set's questions, by difficulty", (), _levels, dense=True),
    "retrieval": _public(
        "retrieval", "captions of images and images of captions, recall at 1, 5 and 10", retrieval.evaluate,
        "images", "text",
    ),
    "zero-shot": _public(
        "zero-shot", "images of classes, in a folder for each or as ImageNet's", zero_shot.evaluate,
        "classes", "templates",
    ),
    "compositional": _public(
        "compositional", "the right caption against a changed one: SugarCrepe, ARO, Winoground", compositional.evaluate,
        "images",
    ),
    "region-retrieval": _public(
        "region-retrieval", "the box that a phrase means: RefCOCO, Flickr30k Entities", region_retrieval.evaluate,
        "images", dense=True,
    ),
    "segmentation": _public(
        "segmentation", "the class of each pixel, from dense features: VOC, Context, ADE, or images and labels",
        segmentation.evaluate, "classes", "templates", dense=True,
    ),
    "boxes": _public(
        "boxes", "classes of given boxes, COCO's and LVIS's", boxes.evaluate, "images", "templates", dense=True
    ),
    "ov-coco": _public(
        "ov-coco", "AP50 of COCO's 17 novel and 48 base classes, from given proposals", ov_coco.evaluate,
        "images", "templates", "proposals", dense=True,
    ),
}  # fmt: skip
