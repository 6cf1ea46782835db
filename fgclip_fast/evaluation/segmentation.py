"""Zero-shot segmentation: the class of each pixel by the dense features and the texts of the classes.

The image is scaled so that its short side is one and a half windows; windows of the model's size move by half of it.
A synonym is the unit mean of its unit embeddings in every template. Cosines are brought to pixels bilinearly, averaged
where windows overlap, brought to the label's size, and the class of the nearest synonym is taken, without refinement.
Where the first class is a background, a pixel is of it, too, if no class has a share of the softmax of 40 cosines that
reaches a threshold. As SCLIP does (arXiv 2312.01597), but from features that FG-CLIP trains.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fgclip_fast.evaluation.asking import Alone, Options
from fgclip_fast.evaluation.classes import Templates, read_templates
from fgclip_fast.evaluation.embedding import class_vectors
from fgclip_fast.evaluation.figures import Figures, counted, origin
from fgclip_fast.evaluation.labelled_pixels import IGNORED, Labelled, decode, read, read_classes
from fgclip_fast.evaluation.metrics import mean_of_known
from fgclip_fast.evaluation.share import parts_of
from fgclip_fast.evaluation.threads import ahead
from fgclip_fast.model.fgclip import FGCLIP

IMAGE_PART = 4
"""Images of a part; each has a dozen windows."""
SCALE = 40.0
"""Factor of the cosines before the softmax of which the threshold is a share: SCLIP's default."""
BACKGROUND = 0.1
"""The threshold where none is given: SCLIP's for VOC21 and Context60."""
WITH_BACKGROUND = {("voc", 21), ("context", 60)}
"""Layouts and numbers of classes of which the first is a background."""
WITHOUT_BACKGROUND = {("voc", 20), ("context", 59)}
"""Those that leave it out, with label 0."""


@dataclass(frozen=True)
class _Classes:
    """What pixels are compared with.

    Attributes:
        vectors: Tensor[S, D], unit rows, of the synonyms.
        owner: int64 Tensor[S], the class of each.
        zero_ignored: whether label 0 is not asked, and others count from 1.
        background: the share of the softmax that a class needs, or else the pixel is of the first; 0 for none.
    """

    vectors: Tensor
    owner: Tensor
    zero_ignored: bool
    background: float


def measure(model: FGCLIP, path: Path, options: Options) -> Figures:
    """Mean intersection over union of classes, and the accuracy of pixels.

    Args:
        model: the model, on its device.
        path: a folder in VOC's, Context's or ADE's layout, or with ``images/`` and ``labels/`` of equal names.
        options: ``classes`` names a file with a class a line, its synonyms after ", "; without it one of
            :data:`~fgclip_fast.evaluation.labelled_pixels.CLASS_FILES` or
            :data:`~fgclip_fast.evaluation.labelled_pixels.LISTS` is read, and VOC has names of its own. With one line
            less than VOC's or Context's labels have, label 0 is ignored: VOC20, Context59. ``background`` is the
            threshold of the first class; None is :data:`BACKGROUND` for VOC21 and Context60, and none elsewhere.
            ``batch_size`` counts windows, ``limit`` images.

    Raises:
        ValueError: the folder has no known layout, or the classes do not fit it.
        OSError: a file does not exist or cannot be read.
    """
    skipped = Counter[str]()
    found = read(path, skipped)
    names = read_classes(path, found.layout, options.classes, options.root)
    prompts = read_templates(options.templates)
    classes = _classes(model, found, names, prompts, options)
    pairs = list(islice(found.pairs, options.limit))
    parts = parts_of(len(pairs), IMAGE_PART)
    decoded = ahead([pairs[part.start : part.stop] for part in options.share.mine(parts)], decode)

    def ask(part: range) -> list[Tensor | None]:
        return [one and _count(model, *one, classes, options.batch_size) for one in next(decoded)]

    def figures(parts: list[list[Tensor | None]]) -> Figures:
        matrices = [matrix for part in parts for matrix in part]
        skipped["missing or unreadable image or label"] += sum(matrix is None for matrix in matrices)
        good = {str(i): m for (i, _), m in zip(pairs, matrices, strict=True) if m is not None}
        return _figures([own[0] for own in names], good, skipped)

    measured = options.share.measure(parts, ask, figures, "images with labels")
    protocol = _protocol(found.layout, len(names), classes, model.config.vision.image_size, prompts)
    named = hashlib.sha256("\n".join(map(", ".join, names)).encode()).hexdigest()[:16]
    data = {**origin(path), "images": len(found.pairs), "classes": named, "templates": prompts.described()}
    return replace(measured, protocol=protocol, data=data)


evaluate = Alone(measure, ("classes", "templates", "background"), dense=True)
"""Evaluate a model by this suite alone."""


def _classes(
    model: FGCLIP, found: Labelled, names: Sequence[Sequence[str]], prompts: Templates, options: Options
) -> _Classes:
    kind = (found.layout, len(names))
    zero_ignored = found.zero_ignored or kind in WITHOUT_BACKGROUND
    usual = BACKGROUND if kind in WITH_BACKGROUND else 0.0
    background = usual if options.background is None else options.background
    vectors = class_vectors(model, [synonym for own in names for synonym in own], prompts.texts, options)
    owner = torch.tensor([number for number, own in enumerate(names) for _ in own])
    return _Classes(vectors.to(model.device), owner, zero_ignored, 0.0 if zero_ignored else background)


def _protocol(layout: str, count: int, classes: _Classes, size: int, prompts: Templates) -> str:
    threshold = "no threshold"
    if classes.background:
        threshold = f"first class below {classes.background:g} of the softmax of {SCALE:g} cosines"
    return (
        f"{layout}, {count} classes{', label 0 ignored' if classes.zero_ignored else ''}: short side "
        f"{3 * size // 2}, windows of {size} by steps of {size // 2}, {prompts.about} a synonym, {threshold}"
    )


def _count(model: FGCLIP, image: Image.Image, label: Tensor, classes: _Classes, batch_size: int) -> Tensor:
    """Count the pixels of an image by true class and predicted class: int64 Tensor[C, C]."""
    if classes.zero_ignored:
        label = torch.where(label == 0, IGNORED, label - 1)
    cosines = _cosines(model, image, classes.vectors, batch_size)
    cosines = F.interpolate(cosines[None], (label.shape[0], label.shape[1]), mode="bilinear")[0]
    predicted = _predict(cosines, classes.owner, classes.background)
    count = int(classes.owner.max()) + 1
    known = label < count  # also leaves out the label 255
    return torch.bincount(label[known] * count + predicted[known], minlength=count * count).reshape(count, count)


def _predict(cosines: Tensor, owner: Tensor, background: float) -> Tensor:
    """The class of each pixel, int64 Tensor[H, W] on the CPU.

    Args:
        cosines: Tensor[S, H, W].
        owner: int64 Tensor[S], the class of each synonym.
        background: a class's nearest synonym needs this share of the softmax over all synonyms; 0 asks for none.
    """
    predicted = owner[cosines.argmax(dim=0).cpu()]
    if not background:
        return predicted
    share = (SCALE * cosines).softmax(dim=0).amax(dim=0).cpu()
    return torch.where(share < background, 0, predicted)


def _cosines(model: FGCLIP, image: Image.Image, vectors: Tensor, batch_size: int) -> Tensor:
    """Cosines of each pixel of the scaled image with each synonym, means over windows: Tensor[S, H, W]."""
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
    return total / copies


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
