"""Annotated boxes of some classes, and proposals of boxes, in COCO's layouts."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from fgclip_fast.evaluation.boxes import coco, image_name
from fgclip_fast.evaluation.pictures import Pictures
from fgclip_fast.inputs.boxes import BadBox, Box, checked, corners, fractions, numbers


class Proposal(NamedTuple):
    """A box to be named."""

    side: list[float]
    """x, y, width, height in pixels."""
    box: Box
    """Fractions of the image."""
    score: float


@dataclass(frozen=True)
class Annotated:
    """Images in the order of their paths, and their annotated boxes of some classes.

    Attributes:
        images: id, path, width and height of each.
        boxes: image id → annotations in COCO's layout, ``category_id`` being the row of the class.
    """

    images: list[tuple[int, Path, float, float]]
    boxes: dict[int, list[dict[str, Any]]]


def read(
    path: Path, classes: Sequence[str], files: Pictures, skipped: Counter[str], limit: int | None = None
) -> Annotated:
    """Read the images of a file in COCO's layout, and their boxes of some classes.

    Args:
        path: the file.
        classes: their names.
        files: its images.
        skipped: counts, by cause, the images and boxes that cannot be used.
        limit: read only the first ``limit`` images; None reads all.

    Raises:
        ValueError: the file is not in COCO's layout, or names none of the classes.
        OSError: it cannot be read.
    """
    whole = coco(path)
    row = {category["id"]: classes.index(category["name"]) for category in whole["categories"]
           if category.get("name") in classes}  # fmt: skip
    if not row:
        raise ValueError(
            f"data: {path} must name classes of COCO, such as {classes[0]}, it names none of the {len(classes)}"
        )
    images: list[tuple[int, Path, float, float]] = []
    for image in islice(whole["images"], limit):
        found = files.find(image_name(image))
        if found is None or not (image.get("width") and image.get("height")):
            skipped["missing or unreadable image"] += 1
        else:
            images.append((image["id"], found, image["width"], image["height"]))
    boxes: dict[int, list[dict[str, Any]]] = {image: [] for image, *_ in images}
    for annotation in whole["annotations"]:
        if annotation.get("category_id") not in row or annotation.get("image_id") not in boxes:
            continue
        try:
            side = numbers(annotation["bbox"])
            area = float(annotation.get("area", side[2] * side[3]))
        except (BadBox, KeyError, TypeError, ValueError):
            skipped["malformed annotation"] += 1
            continue
        label, crowd = row[annotation["category_id"]], int(bool(annotation.get("iscrowd")))
        boxes[annotation["image_id"]].append({"bbox": side, "area": area, "iscrowd": crowd, "category_id": label})
    return Annotated(sorted(images, key=lambda image: str(image[1])), boxes)


def read_proposals(path: Path, truth: Annotated, skipped: Counter[str]) -> dict[int, list[Proposal]]:
    """Read proposals in COCO's layout of results: image id → its proposals. Those of other images are left out.

    Raises:
        ValueError: the file is not a JSON list of objects.
        OSError: it cannot be read.
    """
    try:
        whole = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"proposals: {path} must be JSON: {error}") from None
    if not isinstance(whole, list) or not all(isinstance(one, dict) for one in whole):
        raise ValueError(f"proposals: {path} must hold a list of {{image_id, bbox, score}} (COCO's layout of results)")
    sizes = {image: (width, height) for image, _, width, height in truth.images}
    found: dict[int, list[Proposal]] = {}
    for one in whole:
        if one.get("image_id") not in sizes:
            continue
        score = one.get("score", 1.0)
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            skipped["proposal with a score outside 0 to 1"] += 1
            continue
        _add(found, one["image_id"], one.get("bbox"), sizes[one["image_id"]], score, skipped)
    return found


def annotated_boxes(truth: Annotated) -> dict[int, list[Proposal]]:
    """The annotated boxes as proposals. Crowds are not objects; a box that covers nothing is left for a miss."""
    found: dict[int, list[Proposal]] = {}
    for image, _, width, height in truth.images:
        for one in truth.boxes[image]:
            if not one["iscrowd"]:
                _add(found, image, one["bbox"], (width, height), 1.0, Counter())
    return found


def _add(
    found: dict[int, list[Proposal]], image: int, side: Any, size: tuple[float, float], score: float,
    skipped: Counter[str],
) -> None:  # fmt: skip
    try:
        side = numbers(side)
        box = checked(fractions(corners(side), *size))
    except BadBox as bad:
        skipped[f"proposal: {bad.reason}"] += 1
    except ArithmeticError:
        skipped["proposal: box not finite"] += 1
    else:
        found.setdefault(image, []).append(Proposal(side, box, score))
