"""Known lists of classes for zero-shot classification: ImageNet's, COCO's, and that of an annotation file, as LVIS's.

All classes of a list compete, also those without images; a folder stands for the class that it names.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fgclip_fast.evaluation.boxes import coco
from fgclip_fast.evaluation.classes import imagenet_names

IMAGENET, COCO, LVIS = "imagenet", "coco", "lvis"
"""Words that ``classes`` may be in the place of a file."""
LVIS_FILES = ("lvis_v1_val.json", "lvis_v1_minival.json", "lvis_v1_train.json")
"""Annotation files that hold LVIS's 1,203 names."""
COCO_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", None, "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", None, "backpack", "umbrella", None, None, "handbag", "tie", "suitcase",
    "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", None, "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", None, "dining table", None, None, "toilet", None, "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", None, "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""COCO's 80 classes by their identifiers, which begin at 1; ten numbers are not used."""


class ClassList(NamedTuple):
    """The classes of a known list."""

    about: str
    """For a protocol."""
    names: list[str]
    rows: Mapping[str, int]
    """Name in small letters, or identifier → row of ``names``."""

    def rows_of(self, labels: Sequence[str]) -> list[int]:
        """The class that each label means: a name, in which ``_`` may stand for a space, or an identifier.

        Raises:
            ValueError: a label means none of the list.
        """
        keys = [_key(label) for label in labels]
        if unknown := next((label for label, key in zip(labels, keys, strict=True) if key not in self.rows), None):
            raise ValueError(f"classes: {self.about} must have each class of the images, it has no {unknown!r}")
        return [self.rows[key] for key in keys]


def known(classes: Path | None, around: Sequence[Path]) -> ClassList | None:
    """The list that ``classes`` means; None if it is a file of names, or none.

    Args:
        classes: ``imagenet``, ``coco``, ``lvis``, an annotation file in COCO's layout (COCO's, LVIS's), or another.
        around: folders in which LVIS's annotations are sought, in this order.

    Raises:
        ValueError: LVIS's annotations are in none of the folders, or ``classes`` is neither a list nor a file.
        OSError: the file cannot be read.
    """
    if classes is None:
        return None
    if classes.is_file():
        categories = _categories(classes)
        return None if categories is None else _of_categories(classes, categories)
    if str(classes) == IMAGENET:
        return _listed("ImageNet's 1,000 classes", dict(enumerate(imagenet_names())))
    if str(classes) == COCO:
        return _listed("COCO's 80 classes", {number: name for number, name in enumerate(COCO_NAMES, 1) if name})
    if str(classes) != LVIS:
        raise FileNotFoundError(f"classes must be a file, or {IMAGENET}, {COCO} or {LVIS}, got {classes}")
    found = (file for top in around for name in LVIS_FILES for file in sorted(top.glob(f"**/{name}")))
    if (file := next(found, None)) is None:
        folders = ", ".join(map(str, around))
        raise ValueError(f"classes: LVIS's names are read from {LVIS_FILES[0]}, which is not in {folders}; name it")
    return _of_categories(file, coco(file)["categories"])


def _categories(path: Path) -> list[Any] | None:
    """The categories of an annotation file; None of another file, which what reads names judges."""
    try:
        return coco(path)["categories"] if path.suffix.lower() == ".json" else None
    except ValueError:
        return None


def _of_categories(path: Path, categories: Iterable[Any]) -> ClassList:
    try:
        names = {int(one["id"]): str(one["name"]).replace("_", " ") for one in categories}
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"classes: categories of {path} must have an id and a name") from None
    return _listed(f"the {len(names):,} classes of {path.name}", names)


def _listed(about: str, names: Mapping[int, str]) -> ClassList:
    """A list of classes by identifier."""
    known = sorted(names)
    rows = {str(identifier): row for row, identifier in enumerate(known)}
    # Of two classes with one name the first is meant, as of ImageNet's two "missile".
    rows |= {_key(names[identifier]): row for row, identifier in reversed([*enumerate(known)])}
    return ClassList(about, [names[identifier] for identifier in known], rows)


def _key(label: str) -> str:
    return label.replace("_", " ").casefold()
