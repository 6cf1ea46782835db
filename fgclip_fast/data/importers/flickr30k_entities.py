"""Flickr30k Entities: ``Sentences/*.txt`` with the phrases marked, ``Annotations/*.xml`` with their boxes."""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from fgclip_fast.data.causes import NOT_UTF8, NOT_XML, BadRecord
from fgclip_fast.data.importers.source import (
    TRIED,
    Options,
    Source,
    SourceRecord,
    around,
    captioned,
    described,
    head,
    image_file,
    splits_by_lists,
)
from fgclip_fast.data.importers.voc import image_size, pixels
from fgclip_fast.data.importers.xml_file import elements

_PHRASE = re.compile(r"\[/EN#(\d+)/\S+ ([^\]]*)\]")
_FOLDERS = ("", "../flickr30k-images/", "../flickr30k_images/", "../images/")


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source holds marked sentences."""
    texts = source.ending(".txt")
    first = next((file for file in islice(_sentences(source), TRIED) if b"[/EN#" in head(file)), None)
    return f"{len(texts)} text files, {first.name} with phrases in [/EN# …]" if first else None


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read the sentences of each image, and the boxes of their phrases."""
    for file in _sentences(source):
        yield _record(file, options)


def _sentences(source: Source) -> list[Path]:
    return [file for file in source.ending(".txt") if file.parent.name == "Sentences"]


def _record(file: Path, options: Options) -> SourceRecord:
    place = file.stem, file.name, 1
    try:
        marked = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        return SourceRecord(*place, None, None, bad=(NOT_UTF8, f"byte {error.start}"))
    phrases: dict[str, list[str]] = defaultdict(list)
    for entity, phrase in (found for line in marked for found in _PHRASE.findall(line)):
        phrases[entity].append(phrase)
    annotation = file.parent.parent / "Annotations" / f"{file.stem}.xml"
    boxes: dict[str, list[Any]] = {}
    size = None
    if annotation.is_file():
        try:
            root = next(elements(annotation, "annotation"))
        except (BadRecord, StopIteration) as error:
            bad = (error.cause, error.detail) if isinstance(error, BadRecord) else (NOT_XML, "no <annotation>")
            return SourceRecord(*place, None, None, bad=bad)
        boxes, size = _boxes(root), image_size(root)
    made = captioned([_PHRASE.sub(r"\2", line) for line in marked])
    made["bbox_info"] = [described(boxes[entity], texts) for entity, texts in phrases.items() if entity in boxes]
    names = [folder + f"{file.stem}.jpg" for folder in _FOLDERS]
    split = splits_by_lists(file.parent.parent).get(file.stem)
    return SourceRecord(*place, image_file(options, file, *names), made, size, split=split)


def _boxes(root: Element) -> dict[str, list[Any]]:
    """Entity → the box around all of its boxes: a phrase such as "two men" describes them together."""
    corners: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
    for entry in root.findall("object"):
        for box in entry.findall("bndbox"):
            x1, y1, x2, y2 = pixels(box)
            for name in entry.findall("name"):
                corners[name.text or ""] += [(x1, y1), (x2, y2)]
    return {entity: around(points) for entity, points in corners.items()}
