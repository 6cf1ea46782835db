"""Box classification: choose the class of a given box by the texts of all classes, on COCO and LVIS.

A box of an annotation file in COCO's layout is asked as it stands, crowds included. Its region embedding is compared
with class vectors, unit means of the unit embeddings of the name in every template, by the short text path. Top-1 and
top-5 are over boxes; beside them stand their means over the classes that have boxes, which other papers report.
Of LVIS's images, those of COCO's val2017 alone are asked, as in the released script. Source: arXiv 2505.05071.
"""

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fgclip_fast.evaluation.asking import MISSING, Alone, Exam, Options, Picture, Seen
from fgclip_fast.evaluation.class_figures import class_figures
from fgclip_fast.evaluation.classes import ranks, read_templates
from fgclip_fast.evaluation.embedding import class_vectors
from fgclip_fast.evaluation.figures import Figures, origin
from fgclip_fast.evaluation.pictures import Pictures, around
from fgclip_fast.inputs.boxes import BadBox, Box, checked, corners, fractions, numbers
from fgclip_fast.model.fgclip import FGCLIP

Boxes = list[tuple[Picture, list[tuple[Box, int]]]]
"""Images, sorted, each with its boxes and their classes."""


class Instances(NamedTuple):
    """The boxes of an annotation file."""

    layout: str
    names: list[str]
    images: Boxes


def exam(model: FGCLIP, path: Path, options: Options) -> Exam:
    """Top-1 and top-5 over boxes, and their means over classes.

    Args:
        model: the model, on its device.
        path: ``instances_val2017.json``, ``lvis_v1_val.json``, or another file in COCO's layout.
        options: ``limit`` counts boxes.

    Raises:
        ValueError: the file is not in COCO's layout.
        OSError: a file or folder does not exist or cannot be read.
    """
    skipped = Counter[str]()
    files = around(path, options.images, options.root)
    found = read(path, files, skipped, options.limit)
    prompts = read_templates(options.templates)
    vectors = class_vectors(model, found.names, prompts.texts, options)
    labels = {image: [label for _, label in own] for image, own in found.images}

    def answer(image: Picture, seen: Seen) -> list[int]:
        return ranks(seen.regions @ vectors.T, torch.tensor(labels[image])).tolist()

    def figures(answers: dict[Picture, list[int]]) -> Figures:
        skipped[MISSING] += sum(len(own) for image, own in labels.items() if image not in answers)
        good = [image for image in labels if image in answers]
        measured = class_figures(
            found.names,
            [str(image) for image in good for _ in labels[image]],
            [label for image in good for label in labels[image]],
            [rank for image in good for rank in answers[image]],
            skipped,
        )
        protocol = f"{found.layout}: given boxes, {len(found.names)} classes, {prompts.about}, short text path"
        return replace(measured, protocol=protocol, data={**origin(path, files), "templates": prompts.described()})

    return Exam(pictures={image: [b for b, _ in own] for image, own in found.images}, answer=answer, figures=figures)


evaluate = Alone(exam, ("images", "templates"), dense=True)
"""Evaluate a model by this suite alone."""


def read(path: Path, files: Pictures, skipped: Counter[str], limit: int | None = None) -> Instances:
    """Read the boxes of a file in COCO's or LVIS's layout.

    Args:
        path: the file.
        files: its images.
        skipped: counts, by cause, the boxes that cannot be asked.
        limit: read only the first ``limit`` boxes; None reads all.

    Raises:
        ValueError: the file is not in COCO's layout.
        OSError: it cannot be read.
    """
    whole = coco(path)
    categories = sorted(whole["categories"], key=lambda category: category["id"])
    row = {category["id"]: number for number, category in enumerate(categories)}
    lvis = any("synset" in category for category in categories)
    records = {image["id"]: image for image in whole["images"] if not lvis or "train2017" not in image_name(image)}
    left_out = {image["id"] for image in whole["images"]} - records.keys()
    by_image: dict[Picture, list[tuple[Box, int]]] = {}
    found: dict[Any, Path | None] = {}
    wanted = (one for one in whole["annotations"] if one.get("image_id") not in left_out)
    for annotation in islice(wanted, limit):
        try:
            image = records[annotation["image_id"]]
            label = row[annotation["category_id"]]
            side = fractions(corners(numbers(annotation["bbox"])), image["width"], image["height"])
            box = checked(side)
        except BadBox as bad:
            skipped[bad.reason] += 1
            continue
        except (KeyError, TypeError, ArithmeticError):
            skipped["malformed annotation"] += 1
            continue
        if image["id"] not in found:
            found[image["id"]] = files.find(image_name(image))
        place = found[image["id"]]
        if place is None:
            skipped[MISSING] += 1
        else:
            by_image.setdefault(place, []).append((box, label))
    names = [str(category["name"]).replace("_", " ") for category in categories]
    layout = "lvis boxes, images of val2017" if lvis else "coco boxes, crowds included"
    return Instances(layout, names, sorted(by_image.items(), key=lambda pair: str(pair[0])))


def coco(path: Path) -> dict[str, Any]:
    """Load a JSON file with COCO's ``images``, ``annotations`` and ``categories``.

    Raises:
        ValueError: it is another file.
        OSError: it cannot be read.
    """
    try:
        whole = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"data: {path} must be JSON: {error}") from None
    lists = ("images", "annotations", "categories")
    if not isinstance(whole, dict) or not all(isinstance(whole.get(name), list) for name in lists):
        got = ", ".join(whole) if isinstance(whole, dict) else type(whole).__name__
        raise ValueError(f"data: {path} must hold {', '.join(lists)} (COCO's layout), got {got}")
    return whole


def image_name(image: dict[str, Any]) -> str:
    """Path of an image in COCO's or LVIS's layout; LVIS gives the folder in its address alone."""
    if isinstance(name := image.get("file_name"), str):
        return name
    return "/".join(str(image.get("coco_url", "")).split("/")[-2:])
