"""Zero-shot segmentation: the class of each pixel by the dense features and the texts of the classes.

The image is scaled so that its short side is one and a half windows; windows of the model's size move by half of it.
A synonym is the unit mean of its unit embeddings in every template. Cosines are brought to pixels bilinearly, averaged
where windows overlap, brought to the label's size, and the class of the nearest synonym is taken; there is no
threshold and no refinement. As SCLIP does (arXiv 2312.01597), but from features that FG-CLIP trains.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fgclip_fast.evaluation.asking import Alone, Options
from fgclip_fast.evaluation.classes import read_templates
from fgclip_fast.evaluation.embedding import class_vectors
from fgclip_fast.evaluation.figures import Figures, counted, origin
from fgclip_fast.evaluation.metrics import mean_of_known
from fgclip_fast.evaluation.share import parts_of
from fgclip_fast.inputs.image import read as read_image
from fgclip_fast.inputs.image_cost import FORMATS, check_size
from fgclip_fast.model.fgclip import FGCLIP

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
IMAGE_PART = 4
"""Images of a part; each has a dozen windows."""
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


def measure(model: FGCLIP, path: Path, options: Options) -> Figures:
    """Mean intersection over union of classes, and the accuracy of pixels.

    Args:
        model: the model, on its device.
        path: a folder in VOC's, Context's or ADE's layout, or with ``images/`` and ``labels/`` of equal names.
        options: ``classes`` names a file with a class a line, its synonyms after ", "; without it one of
            :data:`CLASS_FILES` or :data:`LISTS` is read, and VOC has names of its own. With one line less than VOC's or
            Context's labels have, label 0 is ignored: VOC20, Context59. ``batch_size`` counts windows, ``limit``
            images.

    Raises:
        ValueError: the folder has no known layout, or the classes do not fit it.
        OSError: a file does not exist or cannot be read.
    """
    skipped = Counter[str]()
    found = read(path, skipped)
    names = read_classes(path, found.layout, options.classes, options.root)
    zero_ignored = found.zero_ignored or (found.layout, len(names)) in (("voc", 20), ("context", 59))
    synonyms = [synonym for own in names for synonym in own]
    owner = torch.tensor([number for number, own in enumerate(names) for _ in own])
    prompts = read_templates(options.templates)
    vectors = class_vectors(model, synonyms, prompts.texts, options).to(model.device)
    pairs = list(islice(found.pairs, options.limit))

    def ask(part: range) -> list[Tensor | None]:
        own = pairs[part.start : part.stop]
        return [_count(model, pair, vectors, owner, zero_ignored, options.batch_size) for pair in own]

    def figures(parts: list[list[Tensor | None]]) -> Figures:
        matrices = [matrix for part in parts for matrix in part]
        skipped["missing or unreadable image or label"] += sum(matrix is None for matrix in matrices)
        good = {str(i): m for (i, _), m in zip(pairs, matrices, strict=True) if m is not None}
        return _figures([own[0] for own in names], good, skipped)

    measured = options.share.measure(parts_of(len(pairs), IMAGE_PART), ask, figures, "images with labels")
    size = model.config.vision.image_size
    protocol = (
        f"{found.layout}, {len(names)} classes{', label 0 ignored' if zero_ignored else ''}: short side "
        f"{3 * size // 2}, windows of {size} by steps of {size // 2}, {prompts.about} a synonym, no threshold"
    )
    named = hashlib.sha256("\n".join(map(", ".join, names)).encode()).hexdigest()[:16]
    data = {**origin(path), "images": len(found.pairs), "classes": named, "templates": prompts.described()}
    return replace(measured, protocol=protocol, data=data)


evaluate = Alone(measure, ("classes", "templates"), dense=True)
"""Evaluate a model by this suite alone."""


def read(path: Path, skipped: Counter[str]) -> Labelled:
    """Read the names of images and labels; arguments and errors are those of :func:`measure`."""
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
        ValueError: no file names the classes.
        OSError: a file cannot be read.
    """
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


def _count(
    model: FGCLIP, pair: tuple[Path, Path], vectors: Tensor, owner: Tensor, zero_ignored: bool, batch_size: int
) -> Tensor | None:
    """Count the pixels of an image by true class and predicted class: int64 Tensor[C, C]; None if it cannot be read."""
    try:
        image = read_image(pair[0])
        with Image.open(pair[1], formats=FORMATS) as opened:
            check_size(*opened.size)
            label = torch.from_numpy(np.array(opened).astype(np.int64))
    except (OSError, ValueError):
        return None
    if label.ndim != 2:
        return None
    if zero_ignored:
        label = torch.where(label == 0, IGNORED, label - 1)
    predicted = owner[_synonyms(model, image, vectors, (label.shape[0], label.shape[1]), batch_size)]
    count = int(owner.max()) + 1
    known = label < count  # also leaves out the label 255
    return torch.bincount(label[known] * count + predicted[known], minlength=count * count).reshape(count, count)


def _synonyms(model: FGCLIP, image: Image.Image, vectors: Tensor, shape: tuple[int, int], batch_size: int) -> Tensor:
    """The nearest synonym of each pixel, int64 Tensor[H, W]."""
    size = model.config.vision.image_size
    scale = 1.5 * size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    pixels = torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BICUBIC))).permute(2, 0, 1)
    corners = [(y, x) for y in _starts(height, size) for x in _starts(width, size)]
    total = torch.zeros(len(vectors), height, width, device=vectors.device)
    copies = torch.zeros(height, width, device=vectors.device)
    for first in range(0, len(corners), batch_size):
        own = corners[first : first + batch_size]
        windows = torch.stack([pixels[:, y : y + size, x : x + size] for y, x in own])
        patches = model.encode_dense(windows).float()
        cosines = (patches @ vectors.T).permute(0, 3, 1, 2)
        for (y, x), found in zip(own, cosines, strict=True):
            total[:, y : y + size, x : x + size] += F.interpolate(found[None], (size, size), mode="bilinear")[0]
            copies[y : y + size, x : x + size] += 1
    return F.interpolate((total / copies)[None], shape, mode="bilinear")[0].argmax(dim=0).cpu()


def _starts(length: int, size: int) -> Iterator[int]:
    """Where windows begin: each half a window after the one before, the last at the end."""
    for start in range(0, max(1, math.ceil((length - size) / (size // 2)) + 1)):
        yield max(0, min(start * (size // 2), length - size))


def _figures(names: Sequence[str], matrices: dict[str, Tensor], skipped: Counter[str]) -> Figures:
    count = len(names)
    whole = sum(matrices.values(), torch.zeros(count, count, dtype=torch.int64))
    right, true, predicted = whole.diagonal().tolist(), whole.sum(dim=1).tolist(), whole.sum(dim=0).tolist()
    ious = [r / (t + p - r) if t else None for r, t, p in zip(right, true, predicted, strict=True)]
    causes = counted(skipped)
    values = {
        "miou": mean_of_known(ious),
        "pixel_accuracy": sum(right) / sum(true) if sum(true) else math.nan,
        "images": len(matrices),
        "classes": count,
        "classes_with_pixels": sum(iou is not None for iou in ious),
        "skipped": causes,
        "iou_by_class": {f"{number} {name}": iou for number, (name, iou) in enumerate(zip(names, ious, strict=True))},
    }
    outcomes = {image: (int(m.diagonal().sum()), int(m.sum())) for image, m in matrices.items()}
    return Figures(values=values, asked=len(matrices), skipped=causes, outcomes={"pixel_accuracy": outcomes})
