"""COCO's JSON, instances and captions joined by the image's id, and LVIS's."""

import json
import re
import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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

_TEXTS = ("caption", "text", "phrase", "expression", "description")
_LISTS = re.compile(rb'"(images|annotations)"\s*:\s*\[')


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source holds COCO's JSON."""
    files = _files(source)
    if not files:
        return None
    found = sorted({name.decode() for file in files for name in _LISTS.findall(head(file))})
    return f"{', '.join(file.name for file in files)}: one object with a list of {' and of '.join(found)}"


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read each image with all its annotations, in the order in which the files list the images."""
    files = _files(source)
    store = _joined(tuple(files))
    names = dict(store.execute("SELECT id, name FROM category"))
    rows = store.execute("SELECT image.place, image.body, annotation.body FROM image LEFT JOIN annotation"
                         " ON annotation.image = image.id ORDER BY image.place, annotation.place")  # fmt: skip
    current: tuple[int, str] | None = None
    annotations: list[dict[str, Any]] = []
    for place, image, annotation in rows:
        if current is not None and place != current[0]:
            yield _record(*current, annotations, names, files[0], options)
            annotations = []
        current = place, image
        if annotation is not None:
            annotations.append(json.loads(annotation))
    if current is not None:
        yield _record(*current, annotations, names, files[0], options)


def _files(source: Source) -> list[Path]:
    named = source.ending(".json") or tuple(path for path in source.paths if path.is_file())
    return [file for file in named if json_stream.kind(head(file)) == "object" and _LISTS.search(head(file))]


@lru_cache(maxsize=1)
def _joined(files: tuple[Path, ...]) -> sqlite3.Connection:
    """A temporary database on disk, which SQLite deletes: the files may be larger than the memory."""
    store = sqlite3.connect("")
    store.execute("CREATE TABLE image (place INTEGER PRIMARY KEY, id UNIQUE, body)")
    store.execute("CREATE TABLE annotation (place INTEGER PRIMARY KEY, image, body)")
    store.execute("CREATE TABLE category (id PRIMARY KEY, name)")
    for file in files:
        for name, entry in json_stream.members(file):
            if isinstance(entry, dict):
                _add(store, file, name, entry)
    store.execute("CREATE INDEX of_image ON annotation (image, place)")
    return store


def _add(store: sqlite3.Connection, file: Path, name: str, entry: dict[str, Any]) -> None:
    if name == "images":
        body: dict[str, Any] = {key: entry[key] for key in ("file_name", "width", "height", "coco_url") if key in entry}
        if isinstance(body.get("file_name"), str) or isinstance(body.get("coco_url"), str):
            body |= {"file": file.name}
            # An image that several files list, such as those of instances and captions, is one.
            store.execute("INSERT OR IGNORE INTO image (id, body) VALUES (?, ?)", (_id(entry), json.dumps(body)))
            known = json.loads(store.execute("SELECT body FROM image WHERE id = ?", (_id(entry),)).fetchone()[0])
            if known.get("file_name") != body.get("file_name"):
                raise ValueError(
                    f"data import: image {entry.get('id')} must be one file, got {known.get('file_name')} in"
                    f" {known['file']} and {body.get('file_name')} in {file.name}; import these files apart"
                )
    elif name == "annotations":
        kept = {key: value for key, value in entry.items() if key not in ("segmentation", "keypoints", "area")}
        store.execute("INSERT INTO annotation (image, body) VALUES (?, ?)", (entry.get("image_id"), json.dumps(kept)))
    elif name == "categories":
        store.execute("INSERT OR IGNORE INTO category VALUES (?, ?)", (entry.get("id"), str(entry.get("name", ""))))


def _id(entry: dict[str, Any]) -> Any:
    return entry.get("id", entry.get("file_name"))


def _record(
    place: int, image: str, annotations: list[dict], names: dict[Any, str], file: Path, options: Options
) -> SourceRecord:
    fields = json.loads(image)
    url = urlsplit(fields.get("coco_url") or "").path.lstrip("/")
    path = fields.get("file_name") or url
    # Annotations of COCO name the file alone, while its images may lie in a folder for each split.
    tried = dict.fromkeys([path, url, Path(path).name, f"{Path(url).parent.name}/{Path(path).name}"])
    captions = [
        entry["caption"] for entry in annotations if "bbox" not in entry and isinstance(entry.get("caption"), str)
    ]
    # A crowd's box surrounds many objects; a text for one of them would be wrong.
    boxed = [entry for entry in annotations if "bbox" in entry and entry.get("iscrowd") != 1]
    made = captioned(captions)
    if boxed:
        made["bbox_info"] = [region(_box(entry), _text(entry, names, options)) for entry in boxed]
    located = image_file(options, file, *(name for name in tried if name))
    return SourceRecord(path, fields["file"], place, located, made, stated_size(fields))


def _box(entry: dict[str, Any]) -> list:
    return entry["bbox"] if isinstance(entry["bbox"], list) else [entry["bbox"]]


def _text(entry: dict[str, Any], names: dict[Any, str], options: Options) -> str:
    fields = (options.text_field,) if options.text_field else _TEXTS
    text = next((entry[name] for name in fields if isinstance(entry.get(name), str) and entry[name].strip()), None)
    if text is not None:
        return text
    name = names.get(entry.get("category_id"), "").replace("_", " ")
    return options.template.format(name) if name else ""
