"""Zero-shot classification: choose the class of an image by the texts of the classes.

A class is the unit mean of the unit embeddings of its name in every template, by the short text path; all images are
asked (the released script leaves out the last batch). Of equal scores the class that stands first wins.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from fgclip_fast.evaluation.asking import MISSING, Alone, Exam, Options, Picture, Seen
from fgclip_fast.evaluation.class_figures import class_figures
from fgclip_fast.evaluation.class_lists import IMAGENET, ClassList, known
from fgclip_fast.evaluation.classes import WNID, imagenet_names, names_of_folders, ranks, read_names, read_templates
from fgclip_fast.evaluation.embedding import class_vectors
from fgclip_fast.evaluation.figures import Figures, origin
from fgclip_fast.model.fgclip import FGCLIP

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAPPINGS = ("LOC_val_solution.csv", "val.txt", "val_map.txt", "labels.txt")
"""Files with the class of each image of a flat folder, in it or in the folder above."""


class Labelled(NamedTuple):
    """Images with their classes."""

    layout: str
    names: list[str]
    images: list[tuple[Path, int]]
    """Sorted; the class as a row of ``names``."""


def exam(model: FGCLIP, path: Path, options: Options) -> Exam:
    """Top-1 and top-5 over images, and their means over classes.

    Args:
        model: the model, on its device.
        path: a folder of class folders, or a flat folder with one of :data:`MAPPINGS` in it or beside it.
        options: ``classes`` is a file of names, or a list as :func:`~fgclip_fast.evaluation.class_lists.known` takes
            it; without it names are ImageNet's, or the folders'. ``limit`` takes images evenly spread.

    Raises:
        ValueError: the folder has no known layout, or names do not fit it.
        OSError: a file or folder does not exist or cannot be read.
    """
    skipped = Counter[str]()
    labelled = read(path, options.classes, skipped, options.root)
    prompts = read_templates(options.templates)
    images, limit = labelled.images, options.limit
    if limit is not None and limit < len(images):
        images = [images[i * len(images) // limit] for i in range(limit)]
    vectors = class_vectors(model, labelled.names, prompts.texts, options)
    labels: dict[Picture, int] = dict(images)

    def answer(image: Picture, seen: Seen) -> int:
        return int(ranks((vectors @ seen.image)[None], torch.tensor([labels[image]])))

    def figures(answers: dict[Picture, int]) -> Figures:
        skipped[MISSING] += len(labels) - len(answers)
        good = [image for image in labels if image in answers]
        measured = class_figures(
            labelled.names, [str(i) for i in good], [labels[i] for i in good], [answers[i] for i in good], skipped
        )
        protocol = f"{labelled.layout}: all images, {len(labelled.names)} classes, {prompts.about}, short text path"
        data = {**origin(path), "images": len(labelled.images), "templates": prompts.described()}
        return replace(measured, protocol=protocol, data=data)

    return Exam(pictures={image: () for image in labels}, answer=answer, figures=figures)


evaluate = Alone(exam, ("classes", "templates"))
"""Evaluate a model by this suite alone."""


def read(path: Path, classes: Path | None, skipped: Counter[str], root: Path | None = None) -> Labelled:
    """Read a folder of labelled images; arguments and errors are those of :func:`exam`."""
    if not path.is_dir():
        raise FileNotFoundError(f"data must be a folder of images for --suite zero-shot, got {path}")
    listed = known(classes, [root or path, path.parent])
    mapping = next((f for top in (path, path.parent) for name in MAPPINGS if (f := top / name).is_file()), None)
    folders = sorted(one.name for one in path.iterdir() if one.is_dir() and not one.name.startswith((".", "__")))
    if occupied := [folder for folder in folders if next(_images(path / folder), None) is not None]:
        # A class without images has no figure, but texts may still be nearest to its name.
        names, row = _rows(folders, occupied, classes, listed)
        images = [(image, row[folder]) for folder in occupied for image in _images(path / folder)]
        return Labelled(_layout("class folders", listed), names, sorted(images))
    if mapping is None:
        raise ValueError(
            f"data: {path} must hold a folder for each class, or images with one of {', '.join(MAPPINGS)} beside them"
        )
    return _flat(path, mapping, classes, listed, skipped)


def _layout(layout: str, listed: ClassList | None) -> str:
    return layout if listed is None else f"{layout} among {listed.about}"


def _flat(path: Path, mapping: Path, classes: Path | None, listed: ClassList | None, skipped: Counter[str]) -> Labelled:
    """ImageNet's flat folder: each image's class by WordNet identifier, by number, or by a list's name."""
    labels = dict(_mapped(mapping))
    names, row = _rows_of_labels(sorted(set(labels.values())), mapping, classes, listed)
    images = []
    for image in _images(path):
        if (label := labels.get(image.name, labels.get(image.stem))) is None:
            skipped["image without a class"] += 1
        else:
            images.append((image, row[label]))
    skipped[MISSING] += len(labels) - len(images)
    return Labelled(_layout(f"flat folder by {mapping.name}", listed), names, sorted(images))


def _rows_of_labels(
    labels: Sequence[str], mapping: Path, classes: Path | None, listed: ClassList | None
) -> tuple[list[str], dict[str, int]]:
    """Names of the classes, and the row of each label of a mapping."""
    if listed is not None or all(WNID.fullmatch(label) for label in labels):
        return _rows(labels, labels, classes, listed)
    if not all(label.isdigit() for label in labels):
        raise ValueError(f"data: {mapping} must give each image a number or a WordNet identifier")
    count = max(map(int, labels)) + 1
    names = read_names(classes, [str(n) for n in range(count)]) if classes else imagenet_names()
    if count > len(names):
        raise ValueError(f"classes: {mapping} must hold numbers below {len(names)}, got {count - 1}")
    return names, {label: int(label) for label in labels}


def _rows(
    labels: Sequence[str], used: Sequence[str], classes: Path | None, listed: ClassList | None
) -> tuple[list[str], dict[str, int]]:
    """Names of the classes, and the row of each label: in a known list of those used, else in the order given."""
    identifiers = str(classes) == IMAGENET and all(WNID.fullmatch(label) for label in labels)
    if listed is not None and not identifiers:
        return listed.names, dict(zip(used, listed.rows_of(used), strict=True))
    names = read_names(classes, labels) if classes and listed is None else names_of_folders(labels)
    return names, {label: number for number, label in enumerate(labels)}


def _mapped(mapping: Path) -> Iterator[tuple[str, str]]:
    text = mapping.read_text(encoding="utf-8-sig")
    if mapping.suffix == ".csv":
        for row in csv.DictReader(text.splitlines()):
            if row.get("ImageId") and row.get("PredictionString"):
                yield row["ImageId"], row["PredictionString"].split()[0]
        return
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2:
            yield Path(words[0]).name, words[1]


def _images(folder: Path) -> Iterator[Path]:
    return (one for one in sorted(folder.iterdir()) if one.suffix.lower() in ENDINGS)
