"""YOLO folders: ``data.yaml`` or ``classes.txt``, and a file of numbers for each image in ``labels/``."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fgclip_fast.data.causes import NO_IMAGE
from fgclip_fast.data.importers.source import (
    ImageFile,
    Options,
    Source,
    SourceRecord,
    around,
    class_text,
    region,
    split_of,
)
from fgclip_fast.data.importers.table_columns import number
from fgclip_fast.data.records import IMAGE_NAMES

_LISTS = ("classes.txt", "obj.names")
_SUFFIXES = tuple(f".{name}" for name in IMAGE_NAMES)


class _Set(NamedTuple):
    """The classes and images of a data set."""

    file: Path
    names: dict[int, str]
    folders: list[tuple[str | None, Path]]
    """Split, and a folder of images or a list of their paths."""
    missing: list[str]
    """Folders that the file names and that do not exist."""
    points: bool
    """A label's box is followed by the points of a pose."""


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source is a YOLO data set."""
    found = _sets(source, options)
    folders = [f"{split or folder.name}: {folder}" for one in found for split, folder in one.folders]
    missing = [name for one in found for name in one.missing]
    if found and not folders:
        raise ValueError(
            f"data import: {found[0].file} names {', '.join(missing)}, which do not exist; its path must be right, or"
            " --images the folder that they start from"
        )
    names = ", ".join(one.file.name for one in found)
    without = f"; {', '.join(missing)} do not exist" if missing else ""
    return f"{names}: {sum(len(one.names) for one in found)} classes, {'; '.join(folders)}{without}" if found else None


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read the images of each split with their labels, by name."""
    for found in _sets(source, options):
        for split, folder in found.folders:
            images = _listed(folder) if folder.is_file() else _under(folder)
            labels = {path: _label(path) for path in images}
            for image, label in labels.items():
                yield _record(image, label, found, split, options)
            if folder.is_dir():
                yield from _without_image(folder, set(labels.values()), split)


def _sets(source: Source, options: Options) -> list[_Set]:
    described = [found for file in source.ending(".yaml", ".yml") if (found := _of_yaml(file, options)) is not None]
    if described:
        return described
    lists = (file for file in source.files if file.name in _LISTS)
    return [found for file in lists if (found := _of_list(file, options)) is not None]


def _of_yaml(file: Path, options: Options) -> _Set | None:
    try:
        fields = yaml.safe_load(file.read_text("utf-8-sig"))
    except (ValueError, yaml.YAMLError):
        return None
    splits = ("train", "val", "valid", "test")
    if not isinstance(fields, dict) or not any(fields.get(split) for split in splits):
        return None
    names = fields.get("names")
    if not isinstance(names, list | dict):
        return None
    names = dict(enumerate(names)) if isinstance(names, list) else names
    stated = [(s, str(path)) for s in splits for path in _several(fields.get(s)) if path]
    placed = [(split_of(s), _place(file, str(fields.get("path") or ""), path, options), path) for s, path in stated]
    folders = [(split, place) for split, place, _ in placed if place is not None]
    missing = [path for _, place, path in placed if place is None]
    classes = {int(i): str(name) for i, name in names.items() if str(i).isdigit()}
    return _Set(file, classes, folders, missing, "kpt_shape" in fields)


def _of_list(file: Path, options: Options) -> _Set | None:
    folders = [options.images or file.parent / "images", file.parent / "obj_train_data"]
    existing = [(None, folder) for folder in folders if folder.is_dir()]
    if not existing or not any(_label(image).is_file() for image in _under(existing[0][1])):
        return None
    lines = file.read_text("utf-8-sig", "replace").splitlines()
    return _Set(file, dict(enumerate(lines)), existing, [], False)  # type: ignore[arg-type]


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _place(file: Path, path: str, name: str, options: Options) -> Path | None:
    """The folder that a file names: below its ``path``, or beside it, as tools write either."""
    roots = [*([options.images] if options.images else []), file.parent / path, Path(path), file.parent]
    names = [name, re.sub(r"^(\.\./)+", "", name)]
    return next((root / each for root in roots for each in names if (root / each).exists()), None)


def _listed(file: Path) -> list[Path]:
    """Images of a list of paths, which start from its folder or the one above."""
    lines = [line.strip() for line in file.read_text("utf-8-sig", "replace").splitlines() if line.strip()]
    tried = ([folder / line for folder in (file.parent, file.parent.parent)] for line in lines)
    return [next((path for path in paths if path.exists()), paths[0]) for paths in tried]


def _under(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)


def _label(image: Path) -> Path:
    """The label file of an image: in ``labels`` for the last ``images`` of its path, else beside the image."""
    parts = image.parts
    if "images" in parts[:-1]:
        at = len(parts) - 1 - parts[::-1].index("images")
        beside = Path(*parts[:at], "labels", *parts[at + 1 :]).with_suffix(".txt")
        if beside.is_file() or not image.with_suffix(".txt").is_file():
            return beside
    return image.with_suffix(".txt")


def _record(image: Path, label: Path, found: _Set, split: str | None, options: Options) -> SourceRecord:
    rows = label.read_text("utf-8-sig", "replace").splitlines() if label.is_file() else []
    cells = [row.split() for row in rows if row.strip()]
    made = {"bbox_info": [region(_box(row, found.points), _text(row, found, options)) for row in cells]}
    return SourceRecord(
        _key(image, found.file.parent), label.name, 1, ImageFile(image.parent, (image.name,)), made, split=split
    )


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _box(row: list[str], points: bool) -> list[Any]:
    """Centre and size, of a label's box or around its polygon."""
    sides = [number(cell) for cell in row[1:]]
    if len(sides) < 6 or len(sides) % 2 or points:
        return sides  # a confidence may follow the box, or the points of a pose
    box = around(list(zip(sides[::2], sides[1::2], strict=True)))
    if not all(isinstance(side, float) for side in box):
        return box
    x1, y1, x2, y2 = box
    return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]


def _text(row: list[str], found: _Set, options: Options) -> str:
    return class_text(found.names.get(int(row[0]), "") if row[0].isdigit() else "", options)


def _without_image(folder: Path, known: set[Path], split: str | None) -> Iterator[SourceRecord]:
    """A record for each label file that no image belongs to."""
    labels = _label(folder / "x.jpg").parent
    if labels == folder:
        return
    for label in sorted(set(labels.rglob("*.txt")) - known):
        yield SourceRecord(
            label.stem, label.name, 1, None, None, bad=(NO_IMAGE, "no image belongs to this label file"), split=split
        )
