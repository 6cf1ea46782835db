"""OV-COCO: AP50 of 17 novel and 48 base classes of COCO, from given proposals.

The split is that of Bansal et al. (2018), as OVR-CNN and later detectors use it. A model that gives regions an
embedding names proposals that another model found; without a file of them, the annotated boxes. A class's score is the
geometric mean of the proposal's score and of the softmax of cosines over all 65 classes. AP50 is computed by
pycocotools; a class without annotated boxes has none and is left out of the means. Detectors that are trained on the
base classes (F-ViT and others) report another number under this name: it needs no given proposals.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgclip_fast.evaluation import average_precision
from fgclip_fast.evaluation.asking import MISSING, Alone, Exam, Options, Picture, Seen
from fgclip_fast.evaluation.average_precision import Detections, ap50, detect, overlaps
from fgclip_fast.evaluation.classes import Templates, read_templates
from fgclip_fast.evaluation.embedding import class_vectors
from fgclip_fast.evaluation.figures import Figures, by_image, counted, origin
from fgclip_fast.evaluation.metrics import mean_of_known
from fgclip_fast.evaluation.pictures import around
from fgclip_fast.evaluation.proposals import Annotated, Proposal, annotated_boxes, read, read_proposals
from fgclip_fast.model.fgclip import FGCLIP

NOVEL = (
    "airplane", "bus", "cat", "dog", "cow", "elephant", "umbrella", "tie", "snowboard", "skateboard", "cup", "knife",
    "cake", "couch", "keyboard", "sink", "scissors",
)  # fmt: skip
BASE = (
    "person", "bicycle", "car", "motorcycle", "train", "truck", "boat", "bench", "bird", "horse", "sheep", "bear",
    "zebra", "giraffe", "backpack", "handbag", "suitcase", "frisbee", "skis", "kite", "surfboard", "bottle", "fork",
    "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "pizza", "donut", "chair", "bed",
    "toilet", "tv", "laptop", "mouse", "remote", "microwave", "oven", "toaster", "refrigerator", "book", "clock",
    "vase", "toothbrush",
)  # fmt: skip
CLASSES = (*NOVEL, *BASE)
SCALE = 75.0
"""Factor of the cosines before the softmax: F-ViT's for B/16, the same for every model."""


def exam(model: FGCLIP, path: Path, options: Options) -> Exam:
    """AP50 of the novel classes, of the base classes, and of all.

    Args:
        model: the model, on its device.
        path: ``instances_val2017.json``, or OVR-CNN's ``instances_val2017_all_2.json``.
        options: ``proposals`` is a JSON list of ``{"image_id", "bbox": [x, y, width, height], "score"}`` (COCO's layout
            of results; a ``category_id`` is ignored, a missing score is 1), without it the annotated boxes themselves
            are named; ``limit`` counts images.

    Raises:
        ValueError: pycocotools is not installed, or a file has another layout.
        OSError: a file or folder does not exist or cannot be read.
    """
    average_precision.require()
    skipped, proposals = Counter[str](), options.proposals
    files = around(path, options.images, options.root)
    truth = read(path, CLASSES, files, skipped, options.limit)
    given = annotated_boxes(truth) if proposals is None else read_proposals(proposals, truth, skipped)
    prompts = read_templates(options.templates)
    vectors = class_vectors(model, CLASSES, prompts.texts, options)
    proposed: dict[Picture, list[Proposal]] = {path: given.get(image, []) for image, path, *_ in truth.images}

    def answer(image: Picture, seen: Seen) -> tuple[Detections, Tensor]:
        return _name(seen.regions, proposed[image], vectors)

    def figures(answers: dict[Picture, tuple[Detections, Tensor]]) -> Figures:
        skipped[MISSING] += len(truth.images) - len(answers)
        found = {image: answers[path] for image, path, *_ in truth.images if path in answers}
        data = {**origin(path, files), "templates": prompts.described()}
        data |= {} if proposals is None else {"proposals": origin(proposals)}
        return replace(_figures(truth, given, found, skipped), protocol=_protocol(proposals, prompts), data=data)

    pictures = {image: [p.box for p in own] for image, own in proposed.items()}
    return Exam(pictures=pictures, answer=answer, figures=figures)


evaluate = Alone(exam, ("images", "templates", "proposals"), dense=True)
"""Evaluate a model by this suite alone."""


def _protocol(proposals: Path | None, prompts: Templates) -> str:
    return (
        f"ov-coco: {'annotated boxes' if proposals is None else f'proposals of {proposals.name}'}, 17 novel and 48 "
        f"base classes together, {prompts.about}, short text path; score: root of the proposal's times softmax of "
        f"{SCALE:g} cosines, above {average_precision.LEAST:g}, NMS {average_precision.NMS} by class, "
        f"{average_precision.MOST} detections an image; AP50 by pycocotools"
    )


def _name(regions: Tensor, proposals: Sequence[Proposal], vectors: Tensor) -> tuple[Detections, Tensor]:
    """The detections of an image, and the nearest class of each proposal."""
    if not proposals:
        return Detections([], [], []), torch.empty(0, dtype=torch.int64)
    cosines = regions @ vectors.T
    scores = (torch.tensor([[p.score] for p in proposals]) * (SCALE * cosines).softmax(dim=1)).sqrt()
    sides = [p.side for p in proposals]
    return detect(scores, overlaps(sides, sides)), cosines.argmax(dim=1)


def _figures(
    truth: Annotated,
    given: dict[int, list[Proposal]],
    answers: dict[int, tuple[Detections, Tensor]],
    skipped: Counter[str],
) -> Figures:
    annotations = {image: truth.boxes[image] for image in answers}
    detections = {image: found for image, (found, _) in answers.items()}
    sides = {image: [p.side for p in given.get(image, [])] for image in answers}
    by_class = ap50(annotations, detections, sides, len(CLASSES))
    matched = {image: _matched(annotations[image], sides[image], nearest) for image, (_, nearest) in answers.items()}
    names = {image: path.name for image, path, *_ in truth.images if image in answers}
    boxes, found, right = (sum(one[i] for one in matched.values()) for i in range(3))
    causes = counted(skipped)
    values: dict[str, Any] = {
        "ap50_novel": mean_of_known(by_class[: len(NOVEL)]),
        "ap50_base": mean_of_known(by_class[len(NOVEL) :]),
        "ap50": mean_of_known(by_class),
        "top1_of_found": right / found if found else math.nan,
        "found_by_proposals": found / boxes if boxes else math.nan,
        "images": len(answers),
        "boxes": boxes,
        "proposals": sum(map(len, sides.values())),
        "novel_classes_with_boxes": sum(ap is not None for ap in by_class[: len(NOVEL)]),
        "base_classes_with_boxes": sum(ap is not None for ap in by_class[len(NOVEL) :]),
        "skipped": causes,
        "ap50_by_class": dict(zip(CLASSES, by_class, strict=True)),
    }
    outcomes = by_image(names.values(), [matched[image][2] for image in names], [matched[image][1] for image in names])
    return Figures(values=values, asked=len(answers), skipped=causes, outcomes={"top1_of_found": outcomes})


def _matched(boxes: Sequence[dict[str, Any]], sides: list[list[float]], nearest: Tensor) -> tuple[int, int, int]:
    """Count annotated boxes, those found (IoU 0.5), and those whose best proposal is named right."""
    objects = [one for one in boxes if not one["iscrowd"]]
    if not objects or not sides:
        return len(objects), 0, 0
    best, at = overlaps([one["bbox"] for one in objects], sides).max(dim=1)
    right = nearest[at] == torch.tensor([one["category_id"] for one in objects])
    found = best >= 0.5
    return len(objects), int(found.sum()), int((found & right).sum())
