"""COCO's JSON, instances and captions joined by the image's id, and LVIS's."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fgclip_fast.data.importers import json_stream
from fgclip_fast.data.importers.source import (
    Options,
    Source,
    SourceRecord,
    captioned,
    class_text,
    head,
    image_file,
    region,
    stated_size,
)

_TEXTS = ("caption", "text", "phrase", "expression", "description")
FieldsOf = Callable[[list[dict[str, Any]], dict[Any, str]], dict[str, Any]]
"""Makes the fields of a record from the annotations of an image and the names of categories."""
_LISTS = re.compile(rb'"(images|annotations)"\s*:\s*\[')
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source holds COCO's JSON."""
    listed = files(source)
    if not listed:
        return None
    found = sorted({name.decode() for file in listed for name in _LISTS.findall(head(file))})
    return f"{', '.join(file.name for file in listed)}: one object with a list of {' and of '.join(found)}"


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read each image with all its annotations, in the order in which the files list the images."""
    return (record for _, record in records(source, options, partial(_captions_and_regions, options)))


def records(source: Source, options: Options, fields_of: FieldsOf) -> Iterator[tuple[Any, SourceRecord]]:
    """Read the id and the record of each image, as :func:`read`; ``fields_of`` makes its fields from annotations."""
    listed = files(source)
    store = _joined(tuple(listed))
    names = dict(store.execute("SELECT id, name FROM category"))
    rows = store.execute("SELECT image.place, image.id, image.body, annotation.body FROM image LEFT JOIN annotation"
                         " ON annotation.image = image.id ORDER BY image.place, annotation.place")  # fmt: skip
    for (place, image_id, image), joined in groupby(rows, lambda row: row[:3]):
        annotations = [json.loads(annotation) for *_, annotation in joined if annotation is not None]
        yield image_id, _record(place, image, fields_of(annotations, names), listed[0], options)


def files(source: Source) -> list[Path]:
    """The files of a source that hold lists of images or annotations."""
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


def _record(place: int, image: str, made: dict[str, Any], file: Path, options: Options) -> SourceRecord:
    fields = json.loads(image)
    url = urlsplit(fields.get("coco_url") or "").path.lstrip("/")
    path = fields.get("file_name") or url
    located = image_file(options, file, *_places(path, url, file if options.images is None else None))
    return SourceRecord(path, fields["file"], place, located, made, stated_size(fields))


def _places(path: str, url: str, beside: Path | None) -> Iterable[str]:
    """Paths under which an image may lie, the likeliest first."""
    # Label Studio writes the path on its server, quoted as in a URL, and puts eight digits before an upload's name.
    plain = unquote(path.partition("?d=")[2] or path).replace("\\", "/")
    name = plain.rpartition("/")[2]
    # Annotations of COCO name the file alone, while its images may lie in a folder for each split.
    split = url.rpartition("/")[0].rpartition("/")[2]
    names = [path, url, plain, name, f"{split}/{name}", path.rpartition("/")[2], _UPLOADED.sub("", name)]
    folders = [""]
    if beside is not None:  # images/train2017 or train2017 beside annotations/instances_train2017.json
        subset = beside.stem.partition("_")[2]
        folders += ["images/", "../images/", f"../images/{subset}/", f"../{subset}/"]
    return dict.fromkeys(folder + each for folder in folders for each in names if each)


def _captions_and_regions(options: Options, annotations: list[dict], names: dict[Any, str]) -> dict[str, Any]:
    captions = [
        entry["caption"] for entry in annotations if "bbox" not in entry and isinstance(entry.get("caption"), str)
    ]
    # A crowd's box surrounds many objects; a text for one of them would be wrong.
    boxed = [entry for entry in annotations if "bbox" in entry and entry.get("iscrowd") != 1]
    made = captioned(captions)
    if boxed:
        made["bbox_info"] = [region(box_of(entry), _text(entry, names, options)) for entry in boxed]
    return made


def box_of(entry: dict[str, Any]) -> list[Any]:
    """The box of an annotation as a list, whatever it is."""
    return entry["bbox"] if isinstance(entry["bbox"], list) else [entry["bbox"]]


def _text(entry: dict[str, Any], names: dict[Any, str], options: Options) -> str:
    fields = (options.text_field,) if options.text_field else _TEXTS
    attributes = entry.get("attributes")  # of CVAT
    stated = {**attributes, **entry} if isinstance(attributes, dict) else entry
    text = next((stated[name] for name in fields if isinstance(stated.get(name), str) and stated[name].strip()), None)
    return class_text(names.get(entry.get("category_id"), ""), options) if text is None else text
