"""Folders of images with labels of their pixels, in the layouts of VOC, Context and ADE or plain, and their classes."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fgclip_fast.inputs.image import read as read_image
from fgclip_fast.inputs.image_cost import FORMATS, check_size

IGNORED = 255
"""Label of pixels that are not asked."""
CLASS_FILES = ("classes.txt", "objectInfo150.txt")
"""Files of class names in the folder itself."""
LISTS = {
    "voc": ("cls_voc21.txt", "cls_voc20.txt"),
    "context": ("cls_context60.txt", "cls_context59.txt"),
    "ade": ("cls_ade20k.txt",),
}
"""Layout → files of class names as SCLIP and its successors call them, in the folder or in the one of all data sets."""
VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip
"""Names of VOC's classes, without the background."""
LAYOUTS = (
    ("voc", "JPEGImages", "SegmentationClass", "ImageSets/Segmentation/val.txt", False),
    ("context", "JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext/val.txt", False),
    ("ade", "images/validation", "annotations/validation", None, True),
    ("images and labels", "images", "labels", None, False),
)
"""Name, folders of images and of labels, list of images, and whether label 0 is ignored and others count from 1."""


class Labelled(NamedTuple):
    """Images with labels of their pixels."""

    layout: str
    pairs: list[tuple[Path, Path]]
    zero_ignored: bool


def read(path: Path, skipped: Counter[str]) -> Labelled:
    """Read the names of images and labels.

    Args:
        path: a folder in one of :data:`LAYOUTS`.
        skipped: counts the images that are listed and not there.

    Raises:
        ValueError: the folder has no known layout.
        OSError: a file cannot be read.
    """
    for layout, images, labels, listed, zero_ignored in LAYOUTS:
        if not (path / images).is_dir() or not (path / labels).is_dir() or (listed and not (path / listed).is_file()):
            continue
        by_stem = {image.stem: image for image in sorted((path / images).iterdir())}
        wanted = (
            (path / listed).read_text().split() if listed else sorted(p.stem for p in (path / labels).glob("*.png"))
        )
        pairs = [(by_stem[stem], path / labels / f"{stem}.png") for stem in wanted if stem in by_stem]
        skipped["missing or unreadable image or label"] += len(wanted) - len(pairs)
        return Labelled(layout, pairs, zero_ignored)
    rows = "; ".join(f"{images}/ and {labels}/ ({name})" for name, images, labels, *_ in LAYOUTS)
    raise ValueError(f"data: {path} must hold {rows}, it has none of them")


def read_classes(path: Path, layout: str, classes: Path | None = None, root: Path | None = None) -> list[list[str]]:
    """Read the synonyms of each class: from ``classes``, from a file beside the images or in ``root``, or VOC's own.

    Raises:
        ValueError: no file names the classes, or ``classes`` is no text file.
        OSError: a file cannot be read.
    """
    if classes is not None and (classes.suffix.lower() == ".json" or not classes.is_file()):
        accepted = 'a text file with a class a line, its synonyms after ", ", in the order of the labels'
        raise ValueError(f"classes: --suite segmentation takes {accepted}, and no known list, got {classes}")
    beside = [path / name for name in CLASS_FILES]
    beside += [top / name for name in LISTS.get(layout, ()) for top in (path, *([] if root is None else [root]))]
    file = classes or next((one for one in beside if one.is_file()), None)
    if file is None and layout == "voc":
        return [[name] for name in VOC]
    if file is None:
        names = ", ".join((*CLASS_FILES, *LISTS.get(layout, ())))
        raise ValueError(f"classes: {path} has none of {names}, so give a file, one class a line")
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if lines and lines[0].split()[:2] == ["Idx", "Ratio"]:  # ADE's own table, whose last column is the name
        lines = [line.split("\t")[-1] for line in lines[1:]]
    return [[one.strip() for one in line.split(", ") if one.strip()] for line in lines]


def decode(pair: tuple[Path, Path]) -> tuple[Image.Image, Tensor] | None:
    """Decode an image and its labels, int64 Tensor[H, W]; None if one of them cannot be read."""
    try:
        image = read_image(pair[0])
        with Image.open(pair[1], formats=FORMATS) as opened:
            check_size(*opened.size)
            label = torch.from_numpy(np.array(opened).astype(np.int64))
    except (OSError, ValueError):
        return None
    return None if label.ndim != 2 else (image, label)
