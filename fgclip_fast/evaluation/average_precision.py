"""Average precision of detections, by pycocotools, and the choice of detections among scored boxes."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

NMS = 0.4
"""A box that overlaps a better one of its class by more (IoU) is dropped: F-ViT's value."""
LEAST = 0.01
"""A score must be above this to be a detection: F-ViT's value."""
MOST = 100
"""Detections of an image, COCO's number."""


class Detections(NamedTuple):
    """The detections of an image, best first."""

    boxes: list[int]
    """Rows of the image's boxes."""
    labels: list[int]
    scores: list[float]


def require() -> None:
    """Refuse to go on without pycocotools.

    Raises:
        ValueError: it is not installed.
    """
    if find_spec("pycocotools") is None:
        raise ValueError("average precision needs pycocotools: pip install 'fgclip_fast[coco]'")


def overlaps(boxes: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> Tensor:
    """IoU of boxes ``x, y, width, height`` with others: Tensor[N, M], fp64."""
    from pycocotools import mask

    first, second = (np.asarray(sides, dtype=np.float64).reshape(-1, 4) for sides in (boxes, others))
    return torch.from_numpy(np.asarray(mask.iou(first, second, [0] * len(second)))).reshape(len(first), len(second))


def detect(scores: Tensor, overlap: Tensor) -> Detections:
    """Choose the detections of an image: the best scores, without boxes that overlap a better one of their class.

    Args:
        scores: Tensor[P, C] of boxes and classes; of equal ones the first row, then the first class, wins.
        overlap: Tensor[P, P], IoU of the boxes with each other.
    """
    left, found = scores.clone(), Detections([], [], [])
    while left.numel() and len(found.boxes) < MOST:
        row, label = divmod(int(left.argmax()), left.shape[1])
        if left[row, label] <= LEAST:
            break
        found.boxes.append(row)
        found.labels.append(label)
        found.scores.append(float(left[row, label]))
        left[overlap[row] > NMS, label] = 0
        # A box of no area in fp64 does not overlap itself.
        left[row, label] = 0
    return found


def ap50(
    annotations: Mapping[int, Sequence[Mapping[str, Any]]],
    detections: Mapping[int, Detections],
    boxes: Mapping[int, Sequence[Sequence[float]]],
    classes: int,
) -> list[float | None]:
    """Compute the average precision of each class at IoU 0.5, as COCO's evaluation does.

    Args:
        annotations: image → its ``bbox``, ``area``, ``iscrowd`` and ``category_id``, a class from 0.
        detections: image → its detections.
        boxes: image → the boxes that detections are rows of, ``x, y, width, height``.
        classes: number of classes.

    Returns:
        For each class its AP50; None for a class without annotations that are not crowds.
    """
    from pycocotools.cocoeval import COCOeval

    truth = [{**one, "image_id": image} for image, own in annotations.items() for one in own]
    found: list[dict[str, Any]] = [
        {"image_id": image, "bbox": list(boxes[image][row]), "category_id": label, "score": score, "iscrowd": 0}
        for image, own in detections.items()
        for row, label, score in zip(*own, strict=True)
    ]
    for one in found:
        one["area"] = one["bbox"][2] * one["bbox"][3]
    with contextlib.redirect_stdout(io.StringIO()):
        compared = COCOeval(*(_indexed(own, list(annotations), classes) for own in (truth, found)), "bbox")
        compared.params.iouThrs = np.array([0.5])
        compared.params.areaRng, compared.params.areaRngLbl = [[0, 1e10]], ["all"]
        compared.params.maxDets = [MOST]
        compared.evaluate()
        compared.accumulate()
    precision = compared.eval["precision"][0, :, :, 0, 0]
    return [float(own.mean()) if own.max(initial=-1) > -1 else None for own in precision.T]


def _indexed(annotations: Sequence[Mapping[str, Any]], images: Sequence[int], classes: int) -> Any:
    """Annotations as pycocotools keeps them. Identifiers count from 1, since it takes a 0 for a box without a match."""
    from pycocotools.coco import COCO

    whole = COCO()
    whole.dataset = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": label} for label in range(classes)],
        "annotations": [{**one, "id": number} for number, one in enumerate(annotations, 1)],
    }
    whole.createIndex()
    return whole
