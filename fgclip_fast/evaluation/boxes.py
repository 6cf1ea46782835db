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

from fgclip_fast.evaluation.class_figures import class_figures
from fgclip_fast.evaluation.classes import ranks, read_templates
from fgclip_fast.evaluation.embedding import class_vectors, embed_regions
from fgclip_fast.evaluation.figures import Figures, origin
from fgclip_fast.evaluation.pictures import Pictures, around
from fgclip_fast.evaluation.share import PART, Share, parts_of
from fgclip_fast.inputs.boxes import BadBox, Box, checked, corners, fractions, numbers
from fgclip_fast.model.fgclip import FGCLIP

Boxes = list[tuple[Path, list[tuple[Box, int]]]]
"""Images, sorted, each with its boxes and their classes."""


class Instances(NamedTuple):
    """The boxes of an annotation file."""

    layout: str
    names: list[str]
    images: Boxes


def evaluate(
    model: FGCLIP,
    path: Path,
    images: Path | None = None,
    *,
    root: Path | None = None,
    templates: Path | None = None,
    batch_size: int = PART,
    limit: int | None = None,
    share: Share | None = None,
) -> Figures:
    """Measure top-1 and top-5 over boxes, and their means over classes.

    Args:
        model: the model, on its device.
        path: ``instances_val2017.json``, ``lvis_v1_val.json``, or another file in COCO's layout.
        images: folder of the images; None is the one of ``path``.
        root: folder of several data sets, where images are sought too.
        templates: file of templates; None takes OpenAI's 80.
        batch_size: images a forward pass, up to :data:`~fgclip_fast.evaluation.share.PART`.
        limit: ask only the first ``limit`` boxes of the file; None asks all.
        share: the processes that divide the work; None is this one alone.

    Raises:
        ValueError: the file is not in COCO's layout.
        OSError: a file or folder does not exist or cannot be read.
    """
    share, skipped = share or Share(), Counter[str]()
    files = around(path, images, root)
    found = read(path, files, skipped, limit)
    prompts = read_templates(templates)
    vectors = class_vectors(model, found.names, prompts.texts, share)

    def ask(part: range) -> list[tuple[str, list[int], list[int] | None]]:
        own = found.images[part.start : part.stop]
        regions = embed_regions(model, [(image, [box for box, _ in boxes]) for image, boxes in own], batch_size)
        labels = [[label for _, label in boxes] for _, boxes in own]
        asked = [
            label for own_labels, rows in zip(labels, regions, strict=True) if rows is not None for label in own_labels
        ]
        good = [rows for rows in regions if rows is not None]
        flat = ranks(torch.cat(good) @ vectors.cpu().T, torch.tensor(asked)).tolist() if good else []
        left = iter(flat)
        return [
            (str(image), own_labels, None if rows is None else list(islice(left, len(own_labels))))
            for (image, _), own_labels, rows in zip(own, labels, regions, strict=True)
        ]

    def figures(parts: list[list[tuple[str, list[int], list[int] | None]]]) -> Figures:
        answered = [one for part in parts for one in part]
        skipped["missing or unreadable image"] += sum(len(labels) for _, labels, own in answered if own is None)
        good = [(image, labels, own) for image, labels, own in answered if own is not None]
        return class_figures(
            found.names,
            [image for image, labels, _ in good for _ in labels],
            [label for _, labels, _ in good for label in labels],
            [rank for *_, own in good for rank in own],
            skipped,
        )

    measured = share.measure(parts_of(len(found.images)), ask, figures)
    protocol = f"{found.layout}: given boxes, {len(found.names)} classes, {prompts.about}, short text path"
    return replace(measured, protocol=protocol, data=origin(path, files))


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
    by_image: dict[Path, list[tuple[Box, int]]] = {}
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
            skipped["missing or unreadable image"] += 1
        else:
            by_image.setdefault(place, []).append((box, label))
    names = [str(category["name"]).replace("_", " ") for category in categories]
    layout = "lvis boxes, images of val2017" if lvis else "coco boxes, crowds included"
    return Instances(layout, names, sorted(by_image.items()))


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
