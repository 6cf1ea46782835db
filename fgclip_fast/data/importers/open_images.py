"""Open Images' CSV: boxes of images, and the names of their classes in ``class-descriptions….csv``."""

import csv
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from fgclip_fast.data.causes import NO_IMAGE
from fgclip_fast.data.importers.source import (
    Options,
    Source,
    SourceRecord,
    class_text,
    head,
    image_file,
    region,
    split_of,
)
from fgclip_fast.data.importers.table_columns import number

_SIDES = ("XMin", "YMin", "XMax", "YMax")
_NEEDED = {"ImageID", "LabelName", *_SIDES}
_SPLITS = ("train", "validation", "test")


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source holds boxes of Open Images.

    Raises:
        ValueError: the names of the classes are missing.
    """
    files, classes = _files(source), _class_files(source)
    if not files:
        return None
    if not classes and b"/m/" in head(files[0]):
        raise ValueError(
            f"data import: {files[0].name} names classes by numbers such as /m/01g317, and needs the"
            " class-descriptions-boxable.csv of its release as a source too"
        )
    names = f"classes in {classes[0].name}" if classes else "classes by name"
    return f"{', '.join(file.name for file in files)}: boxes of images by ImageID, {names}"


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read the rows; consecutive rows of one image are one record."""
    classes = _classes(tuple(_class_files(source)))
    for file in _files(source):
        split = next((split_of(name) for name in _SPLITS if name in file.name.lower()), None)
        with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
            rows = csv.DictReader(lines)
            placed = ((rows.line_num, row) for row in rows)
            for image, group in groupby(placed, lambda each: (each[1].get("ImageID") or "").strip()):
                yield _record(file, image, list(group), classes, split, options)


def _files(source: Source) -> list[Path]:
    return [file for file in source.ending(".csv") if set(_header(file)) >= _NEEDED]


def _header(file: Path) -> list[str]:
    line = (head(file).decode("utf-8-sig", "replace").splitlines() or [""])[0]
    return next(csv.reader([line]), [])


def _class_files(source: Source) -> list[Path]:
    """Files of two columns whose first is a class's number, with a header or without one."""
    lines = ((file, head(file).decode("utf-8-sig", "replace").splitlines()[:2]) for file in source.ending(".csv"))
    return [file for file, first in lines if first and all(_is_class(line) for line in first[-1:])]


def _is_class(line: str) -> bool:
    cells = next(csv.reader([line]), [])
    return len(cells) == 2 and cells[0].startswith(("/m/", "/g/", "/t/"))


@lru_cache(maxsize=1)
def _classes(files: tuple[Path, ...]) -> dict[str, str]:
    names: dict[str, str] = {}
    for file in files:
        with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
            names |= {row[0]: row[1] for row in csv.reader(lines) if len(row) >= 2}
    return names


def _record(
    file: Path, image: str, rows: list[tuple[int, dict]], classes: dict[str, str], split: str | None, options: Options
) -> SourceRecord:
    line = rows[0][0]
    if not image:
        return SourceRecord("", file.name, line, None, None, bad=(NO_IMAGE, "the column ImageID is empty"))
    # The box of a group surrounds several objects; a text for one of them would be wrong.
    boxed = [row for _, row in rows if row.get("IsGroupOf") != "1"]
    made = {"bbox_info": [region(_box(row), _text(row, classes, options)) for row in boxed]}
    folders = ["", *([f"{name}/" for name in _SPLITS if split_of(name) == split] if split else [])]
    places = [folder + image + suffix for folder in folders for suffix in (".jpg", ".png")]
    return SourceRecord(image, file.name, line, image_file(options, file, *places), made, split=split)


def _box(row: dict[str, Any]) -> list[Any]:
    return [number(row.get(side)) for side in _SIDES]


def _text(row: dict[str, Any], classes: dict[str, str], options: Options) -> str:
    free = (row.get(options.text_field) or "").strip() if options.text_field else ""
    label = (row.get("LabelName") or "").strip()
    return free or class_text(classes.get(label, "" if label.startswith("/m/") else label), options)
