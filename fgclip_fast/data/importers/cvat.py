"""CVAT's XML for images: one file with an ``<image>`` for each image."""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from fgclip_fast.data.causes import BadRecord
from fgclip_fast.data.importers.source import (
    TRIED,
    Options,
    Source,
    SourceRecord,
    around,
    captioned,
    class_text,
    head,
    image_file,
    region,
    split_of,
    stated_size,
)
from fgclip_fast.data.importers.table_columns import number
from fgclip_fast.data.importers.xml_file import elements

_SIDES = {
    "box": ("xtl", "ytl", "xbr", "ybr"),
    "mask": ("left", "top", "width", "height"),
    "ellipse": ("cx", "cy", "rx", "ry"),
}


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source holds CVAT's XML."""
    for file in islice(source.ending(".xml"), TRIED):
        if b"<annotations>" in head(file) and b"<track " in head(file):
            raise ValueError(f"data import: {file} is CVAT's XML for video; export it as CVAT for images 1.1")
        if b"<annotations>" in head(file) and (b"<image " in head(file) or b"<meta>" in head(file)):
            return f"{file.name}: <annotations> of <image>"
    return None


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read each image with its boxes; masks, polygons and ellipses become the boxes around them."""
    for file in source.ending(".xml"):
        number_of_image = 0
        try:
            for number_of_image, image in enumerate(elements(file, "image"), start=1):
                yield _record(file, number_of_image, image, options)
        except BadRecord as bad:
            yield SourceRecord("", file.name, number_of_image + 1, None, None, bad=(bad.cause, bad.detail))


def _record(file: Path, line: int, image: Element, options: Options) -> SourceRecord:
    name = image.get("name", "")
    boxed = [(entry, box) for entry in image if (box := _box(entry)) is not None]
    made = captioned([_text(entry, options) for entry in image.findall("tag")])
    if boxed:
        made["bbox_info"] = [region(box, _text(entry, options)) for entry, box in boxed]
    places = dict.fromkeys(folder + each for each in (name, Path(name).name) for folder in ("", "images/"))
    size = stated_size({side: number(image.get(side)) for side in ("width", "height")})
    split = split_of(image.get("subset"))
    return SourceRecord(name, file.name, line, image_file(options, file, *places), made, size, split=split)


def _text(entry: Element, options: Options) -> str:
    attributes = {each.get("name"): (each.text or "").strip() for each in entry.findall("attribute")}
    return attributes.get(options.text_field) or class_text(entry.get("label", ""), options)


def _box(entry: Element) -> list[Any] | None:
    """The box of a shape; None for what has no area."""
    if entry.tag == "polygon":
        pairs = (pair.partition(",") for pair in entry.get("points", "").split(";") if pair)
        return around([(number(x), number(y)) for x, _, y in pairs])
    if entry.tag not in _SIDES:
        return None
    sides = [number(entry.get(name)) for name in _SIDES[entry.tag]]
    if not all(isinstance(side, float) for side in sides):
        return sides  # for the checks
    first, second, third, fourth = sides
    if entry.tag == "mask":
        return [first, second, first + third, second + fourth]
    if entry.tag == "ellipse":
        return [first - third, second - fourth, first + third, second + fourth]
    return _turned(sides, number(entry.get("rotation")))


def _turned(box: list[float], degrees: Any) -> list[float]:
    """The box around a box that is turned about its middle."""
    if not degrees or not isinstance(degrees, float):
        return box
    x1, y1, x2, y2 = box
    cos, sin = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    wide, high = ((x2 - x1) * cos + (y2 - y1) * sin) / 2, ((x2 - x1) * sin + (y2 - y1) * cos) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return [x - wide, y - high, x + wide, y + high]
