"""JSON lines or JSON lists of records: own ones, FineHARD's, an imagefolder's ``metadata.jsonl``, ShareGPT4V's.

A record is an object with the path of its image (:data:`IMAGE_FIELDS`) and the fields that
:mod:`fgclip_fast.data.records` reads, or those of the other layouts, which are translated to them here.
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from fgclip_fast.data.causes import NO_IMAGE, WRONG_TYPE
from fgclip_fast.data.importers import json_stream
from fgclip_fast.data.importers.source import (
    Options,
    Source,
    SourceRecord,
    captioned,
    head,
    image_file,
    region,
    stated_size,
)

IMAGE_FIELDS = ("image", "f_path", "img_path", "file_name", "image_path", "filepath")
"""Names of the field that holds the path of the image."""
TEXT_FIELDS = ("text", "title")
"""Names of fields with a short caption, beside those of a record."""
SUFFIXES = (".json", ".jsonl", ".ndjson")
# FineHARD's paths begin so, though its downloads lack these folders: first as published later, then as first.
_FINEHARD_PREFIXES = ("grit-20m/data-12m/", "data/down-grit-12m/")
_FINEHARD_OLDER = re.compile(r"(coyo_image_\d+)/(\d{5})/\d{5}/\d{5}(\d{4})(\.\w+)")
_FINEHARD_NEWER = re.compile(r"(coyo_image_\d+)/(\d{5})/\2(\d{4})(\.\w+)")
_TRIED = 100  # entries of a file that may be broken before one is a record


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source holds records of this kind."""
    for file in _files(source):
        try:
            for fields in _first_objects(file):
                name = next((name for name in _image_fields(options) if isinstance(fields.get(name), str)), None)
                if name is not None:
                    others = ", ".join(other for other in fields if other != name) or "nothing"
                    return f"{file.name}: entries with the image in {name!r}, beside {others:.80}"
        except ValueError:
            return f"{file.name}: a JSON list that breaks off"
    return None


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read the records of all files."""
    for file in _files(source):
        listed = json_stream.kind(head(file)) == "list"
        for line in json_stream.entries(file) if listed else json_stream.lines(file):
            yield _record(file, line, options)


def image_names(path: str) -> tuple[str, ...]:
    """Paths under which an image may lie: FineHARD's prefixes are taken off, and both of its namings are tried."""
    for prefix in _FINEHARD_PREFIXES:
        path = path.removeprefix(prefix)
    older, newer = _FINEHARD_OLDER.fullmatch(path), _FINEHARD_NEWER.fullmatch(path)
    if older:
        folder, part, number, suffix = older.groups()
        return path, f"{folder}/{part}/{part}{number}{suffix}"
    if newer:
        folder, part, number, suffix = newer.groups()
        return path, f"{folder}/{part}/00000/00000{number}{suffix}"
    return (path,)


def _files(source: Source) -> tuple[Path, ...]:
    found = source.ending(*SUFFIXES)
    # A file that is named explicitly counts whatever its name.
    return found or tuple(path for path in source.paths if path.is_file() and json_stream.kind(head(path)))


def _image_fields(options: Options) -> tuple[str, ...]:
    return (options.image_field,) if options.image_field else IMAGE_FIELDS


def _first_objects(file: Path) -> Iterator[Mapping[str, Any]]:
    kind = json_stream.kind(head(file))
    if kind in ("list", "lines"):
        first = islice(json_stream.entries(file) if kind == "list" else json_stream.lines(file), _TRIED)
        yield from (line.value for line in first if isinstance(line.value, Mapping))


def _record(file: Path, line: json_stream.Line, options: Options) -> SourceRecord:
    fields, place = line.value, (file.name, line.number)
    if line.bad is not None:
        return SourceRecord("", *place, None, None, bad=line.bad)
    if not isinstance(fields, Mapping):
        bad = WRONG_TYPE, f"a record must be an object, got {type(fields).__name__}"
        return SourceRecord("", *place, None, None, bad=bad)
    names = _image_fields(options)
    path = next((fields[name] for name in names if isinstance(fields.get(name), str)), None)
    if path is None:
        bad = NO_IMAGE, f"a record must have a path in {' or '.join(names)}"
        return SourceRecord("", *place, None, None, bad=bad)
    size = stated_size(fields)
    return SourceRecord(path, *place, image_file(options, file, *image_names(path)), _translated(fields, options), size)


def _translated(fields: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """Fields as a record has them; those that it does not know stay."""
    made = dict(fields)
    short = next((fields[name] for name in TEXT_FIELDS if fields.get(name) is not None), None)
    if options.text_field:
        short = fields.get(options.text_field)
    if short is not None:
        made.setdefault("short_caption", short)
    if isinstance(fields.get("conversations"), list) and "caption" not in made:
        made["caption"] = _answer(fields["conversations"])
    several = next((fields[name] for name in ("caption", "captions") if isinstance(fields.get(name), list)), None)
    if several is not None and all(isinstance(text, str) for text in several):
        made = {**{name: value for name, value in made.items() if name != "caption"}, **captioned(several)}
    if isinstance(fields.get("objects"), Mapping | list) and "bbox_info" not in made:
        made["bbox_info"] = objects(fields["objects"], options)
    return made


def _answer(conversations: list) -> str | None:
    """ShareGPT4V: the first text of the model is the caption of the image."""
    for turn in conversations:
        if (
            isinstance(turn, Mapping)
            and turn.get("from") in ("gpt", "assistant")
            and isinstance(turn.get("value"), str)
        ):
            return turn["value"]
    return None


def objects(given: Mapping[str, Any] | list, options: Options, names: list[str] | None = None) -> list[dict[str, Any]]:
    """Regions of an imagefolder's ``objects``: lists of equal length, or a list of objects.

    Args:
        given: has ``bbox`` and, for each box, a text (``caption``, ``text``, …) or a category.
        options: the text field, and the template for a category's name.
        names: the categories' names, where the data state them as numbers.
    """
    if isinstance(given, list):
        return [_object(entry, options, names) for entry in given if isinstance(entry, Mapping)]
    columns = {name: value for name, value in given.items() if isinstance(value, list)}
    count = len(columns.get("bbox", columns.get("boxes", [])))
    rows = ({name: column[i] for name, column in columns.items() if i < len(column)} for i in range(count))
    return [_object(row, options, names) for row in rows]


def _object(entry: Mapping[str, Any], options: Options, names: list[str] | None) -> dict[str, Any]:
    box = entry.get("bbox", entry.get("boxes", entry.get("box")))
    free = (options.text_field,) if options.text_field else ("caption", "text", "phrase", "short_expr")
    text = next((entry[name] for name in free if isinstance(entry.get(name), str)), None)
    category = next((entry[n] for n in ("category", "categories", "label", "labels", "name") if n in entry), None)
    if isinstance(category, int) and names and 0 <= category < len(names):
        category = names[category]
    if text is None and isinstance(category, str):
        text = options.template.format(category)
    return region(box if isinstance(box, list) else [json.dumps(box)], text or "")
