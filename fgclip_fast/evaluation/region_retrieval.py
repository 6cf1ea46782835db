"""Region retrieval: which of an image's boxes does a phrase mean? RefCOCO, RefCOCO+, RefCOCOg and Flickr30k Entities.

The candidates are all annotated boxes of the image; a phrase's box is right if no wrong one has as high a cosine, so a
tie is wrong. Texts go by the short path, without a prompt. Sources: arXiv 1608.00272, arXiv 1505.04870.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import torch
from torch import Tensor

from fgclip_fast.evaluation.asking import MISSING, Alone, Exam, Options, Picture, regions
from fgclip_fast.evaluation.boxes import coco, image_name
from fgclip_fast.evaluation.embedding import embed_texts
from fgclip_fast.evaluation.figures import Figures, by_image, counted, origin
from fgclip_fast.evaluation.metrics import interval
from fgclip_fast.evaluation.pictures import around
from fgclip_fast.inputs.boxes import BadBox, Box, checked, corners, fractions, numbers
from fgclip_fast.model.fgclip import FGCLIP

_PHRASE = re.compile(r"\[/EN#(\d+)(?:/[^\s\]]+)?\s+([^\]]+)\]")


class Phrase(NamedTuple):
    """A phrase, and the rows of the boxes that it means."""

    text: str
    right: tuple[int, ...]
    split: str


@dataclass
class Scene:
    """The boxes of an image and the phrases about them."""

    boxes: list[Box] = field(default_factory=list)
    phrases: list[Phrase] = field(default_factory=list)


def exam(model: FGCLIP, path: Path, options: Options) -> Exam:
    """How often the right box is the nearest, in all and by split.

    Args:
        model: the model, on its device.
        path: a JSON file of RefCOCO's references with ``instances.json`` beside it, their folder, or the folder of
            Flickr30k Entities.
        options: ``limit`` counts images, by name.

    Raises:
        ValueError: the content has no known layout.
        OSError: a file or folder does not exist or cannot be read.
    """
    skipped = Counter[str]()
    files = around(path, options.images, options.root)
    entities = (path / "Sentences").is_dir()
    scenes = _entities(path, skipped) if entities else _references(path, skipped)
    by_path: dict[Picture, Scene] = {}
    for name, scene in islice(sorted((n, s) for n, s in scenes.items() if s.phrases), options.limit):
        if (place := files.find(name)) is None:
            skipped[MISSING] += len(scene.phrases)
        else:
            by_path[place] = scene
    texts = sorted({phrase.text for scene in by_path.values() for phrase in scene.phrases})
    rows = embed_texts(model, texts, "short", options)

    def figures(answers: dict[Picture, Tensor]) -> Figures:
        measured = _figures(by_path, answers, dict(zip(texts, rows, strict=True)), skipped)
        layout = "flickr30k entities, test split" if entities else "references, all splits but train"
        protocol = f"{layout}: the right one of the image's annotated boxes, short text path"
        return replace(measured, protocol=protocol, data=origin(path, files))

    return Exam(pictures={image: s.boxes for image, s in by_path.items()}, answer=regions, figures=figures)


evaluate = Alone(exam, ("images",), dense=True)
"""Evaluate a model by this suite alone."""


def _references(path: Path, skipped: Counter[str]) -> dict[str, Scene]:
    source = path
    if path.is_dir():
        found = sorted(file for file in path.glob("refs*.json"))
        if not found and (pickles := sorted(path.glob("refs*.p"))):
            source = pickles[0]
        elif not found:
            raise ValueError(f"data: {path} must hold refs*.json (RefCOCO) or Sentences/ (Flickr30k Entities)")
        else:
            source = found[0]
    if source.suffix in (".p", ".pkl", ".pickle"):
        raise ValueError(
            f"data: {source} is a pickle, which is not read, since unpickling runs code; if you trust it: "
            'python -c "import json, pickle; '
            f"json.dump(pickle.load(open('{source.name}', 'rb')), open('{source.stem}.json', 'w'))\""
        )
    references = json.loads(source.read_bytes())
    if not isinstance(references, list) or not all(isinstance(one, dict) and "sentences" in one for one in references):
        raise ValueError(f"data: {source} must hold a list of references with sentences (RefCOCO)")
    whole = coco(source.parent / "instances.json")
    names = {image["id"]: image for image in whole["images"]}
    scenes: dict[str, Scene] = defaultdict(Scene)
    row: dict[Any, int] = {}
    for annotation in whole["annotations"]:
        try:
            image = names[annotation["image_id"]]
            box = checked(fractions(corners(numbers(annotation["bbox"])), image["width"], image["height"]))
        except (KeyError, TypeError, BadBox, ArithmeticError):
            continue  # a reference to it is counted below
        scene = scenes[image_name(image)]
        row[annotation.get("id")] = len(scene.boxes)
        scene.boxes.append(box)
    for one in (reference for reference in references if reference.get("split") != "train"):
        texts = [s.get("raw") or s.get("sent") for s in one["sentences"] if isinstance(s, dict)]
        good = one.get("image_id") in names and one.get("ann_id") in row
        for text in texts:
            if not good or not isinstance(text, str) or not text.strip():
                skipped["reference without a usable box or text"] += 1
                continue
            scene = scenes[image_name(names[one["image_id"]])]
            scene.phrases.append(Phrase(text.strip(), (row[one["ann_id"]],), str(one.get("split", "all"))))
    return scenes


def _entities(path: Path, skipped: Counter[str]) -> dict[str, Scene]:
    listed = path / "test.txt"
    names = (
        listed.read_text().split() if listed.is_file() else [f.stem for f in sorted((path / "Sentences").glob("*.txt"))]
    )
    scenes: dict[str, Scene] = {}
    for name in names:
        try:
            boxes, rows = _entity_boxes(path / "Annotations" / f"{name}.xml")
            sentences = (path / "Sentences" / f"{name}.txt").read_text(encoding="utf-8")
        except (OSError, ElementTree.ParseError, TypeError, ValueError):
            skipped["malformed or missing annotation file"] += 1
            continue
        found = list(_phrases(sentences))
        phrases = [Phrase(text, rows[entity], "test") for entity, text in found if entity in rows]
        skipped["phrase without a box"] += len(found) - len(phrases)
        scenes[f"{name}.jpg"] = Scene(boxes, phrases)
    return scenes


def _phrases(sentences: str) -> Iterator[tuple[str, str]]:
    for match in _PHRASE.finditer(sentences):
        yield match[1], match[2].strip()


def _entity_boxes(file: Path) -> tuple[list[Box], dict[str, tuple[int, ...]]]:
    """Boxes of an image, and the rows of those of each entity."""
    top = ElementTree.parse(file).getroot()
    width, height = (float(top.findtext(f"size/{side}") or "nan") for side in ("width", "height"))
    boxes: list[Box] = []
    rows: dict[str, tuple[int, ...]] = {}
    for one in top.iter("object"):
        if (bounds := one.find("bndbox")) is None:
            continue  # an entity that is the whole scene, or not in the picture
        sides = [float(bounds.findtext(side) or "nan") for side in ("xmin", "ymin", "xmax", "ymax")]
        try:
            boxes.append(checked(fractions(sides, width, height)))
        except BadBox:
            continue
        for name in one.findall("name"):
            rows[name.text or ""] = (*rows.get(name.text or "", ()), len(boxes) - 1)
    return boxes, rows


def _figures(
    scenes: Mapping[Picture, Scene],
    seen: Mapping[Picture, Tensor],
    texts: Mapping[str, Tensor],
    skipped: Counter[str],
) -> Figures:
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    chances: list[float] = []
    images: list[Picture] = []
    hits: list[bool] = []
    for image, scene in scenes.items():
        if (rows := seen.get(image)) is None:
            skipped[MISSING] += len(scene.phrases)
            continue
        for phrase in scene.phrases:
            cosines = rows @ texts[phrase.text]
            best = cosines[list(phrase.right)].max()
            wrong = torch.ones(len(rows), dtype=torch.bool)
            wrong[list(phrase.right)] = False
            images.append(image)
            hits.append(not bool((cosines[wrong] >= best).any()))
            asked[phrase.split] += 1
            right[phrase.split] += hits[-1]
            chances.append(len(phrase.right) / len(rows))
    total = asked.total()
    causes = counted(skipped)
    values: dict[str, Any] = {
        "top1": right.total() / total if total else math.nan,
        "interval": list(interval(right.total(), total)),
        **{f"top1 {split}": right[split] / asked[split] for split in sorted(asked)},
        "chance": math.fsum(chances) / total if total else math.nan,
        "questions": total,
        "skipped": causes,
    }
    return Figures(values=values, asked=total, skipped=causes, outcomes={"top1": by_image(images, hits, [1] * total)})
