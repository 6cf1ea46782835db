"""Pascal VOC's XML: a file for each image, in a VOCdevkit or in any folder."""

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
    class_text,
    head,
    image_file,
    region,
    splits_by_lists,
    stated_size,
)
from fgclip_fast.data.importers.table_columns import number
from fgclip_fast.data.importers.xml_file import elements

_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".webp", ".bmp")


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source holds VOC's XML."""
    files = source.ending(".xml")
    first = next((file for file in islice(files, TRIED) if b"<annotation>" in head(file)), None)
    return f"{len(files)} XML files, {first.name} with an <annotation>" if first else None


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read the annotation of each file."""
    for file in source.ending(".xml"):
        try:
            root = next(elements(file, "annotation"), None)
        except BadRecord as bad:
            yield SourceRecord(file.stem, file.name, 1, None, None, bad=(bad.cause, bad.detail))
            continue
        if root is not None:
            yield _record(file, root, options)


def image_size(root: Element) -> tuple[float, float] | None:
    """The size that an annotation states."""
    return stated_size({name: number(root.findtext(f"size/{name}")) for name in ("width", "height")})


def pixels(box: Element) -> list[Any]:
    """A ``bndbox``, whose pixels are counted from 1 and include the last, as x1, y1, x2, y2 counted from 0."""
    x1, y1, x2, y2 = (number(box.findtext(name)) for name in ("xmin", "ymin", "xmax", "ymax"))
    return [x1 - 1 if isinstance(x1, float) else x1, y1 - 1 if isinstance(y1, float) else y1, x2, y2]


def _record(file: Path, root: Element, options: Options) -> SourceRecord:
    name = (root.findtext("filename") or "").strip().replace("\\", "/")
    made = {"bbox_info": [region(_box(entry), _text(entry, options)) for entry in root.findall("object")]}
    stems = dict.fromkeys([*([Path(name).stem] if name else []), file.stem])
    # Some tools leave the suffix out; others keep the name that the image had before.
    names = [*([name, Path(name).name] if name else []), *(stem + suffix for stem in stems for suffix in _SUFFIXES)]
    places = dict.fromkeys(folder + each for each in names for folder in ("", "../JPEGImages/", "../images/"))
    place = name or file.stem, file.name, 1
    split = splits_by_lists(file.parent.parent / "ImageSets" / "Main").get(file.stem)
    return SourceRecord(*place, image_file(options, file, *places), made, image_size(root), split=split)


def _box(entry: Element) -> list[Any]:
    box = entry.find("bndbox")
    if box is not None:
        return pixels(box)
    polygon = entry.find("polygon")  # of Roboflow, or of LabelMe's web page
    if polygon is None:
        return []
    named = {child.tag: number(child.text) for child in polygon}
    flat = [(named[f"x{i}"], named.get(f"y{i}")) for i in range(1, len(named) + 1) if f"x{i}" in named]
    return around(flat or [(number(p.findtext("x")), number(p.findtext("y"))) for p in polygon.findall("pt")])


def _text(entry: Element, options: Options) -> str:
    free = (entry.findtext(options.text_field) or "").strip() if options.text_field else ""
    return free or class_text(entry.findtext("name") or "", options)
