"""Visual Genome: ``region_descriptions.json``, with the sizes and names of the images in ``image_data.json``."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fgclip_fast.data.causes import WRONG_TYPE
from fgclip_fast.data.importers import json_stream
from fgclip_fast.data.importers.source import Options, Source, SourceRecord, head, image_file, stated_size

_REGIONS = re.compile(rb'"regions"\s*:\s*\[')
_FOLDERS = ("VG_100K", "VG_100K_2")
_SIDES = ("x", "y", "width", "height")


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source holds Visual Genome's regions."""
    files, images = _files(source), _image_files(source)
    if not files:
        return None
    sizes = f"sizes in {images[0].name}" if images else "no image_data.json: images named by their number"
    return f"{files[0].name}: a list of 'regions' with a 'phrase', {sizes}"


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read the entries, one for each image."""
    known = _images(tuple(_image_files(source)))
    for file in _files(source):
        for line in json_stream.entries(file):
            entry = line.value
            if isinstance(entry, Mapping) and isinstance(entry.get("regions"), list):
                yield _record(file, line.number, entry, known, options)
            else:
                bad = WRONG_TYPE, "an entry must have a list of regions"
                yield SourceRecord("", file.name, line.number, None, None, bad=bad)


def _files(source: Source) -> list[Path]:
    lists = (file for file in source.ending(".json") if json_stream.kind(head(file)) == "list")
    return [file for file in lists if _REGIONS.search(head(file)) and b'"phrase"' in head(file)]


def _image_files(source: Source) -> list[Path]:
    lists = (file for file in source.ending(".json") if json_stream.kind(head(file)) == "list")
    return [file for file in lists if all(name in head(file) for name in (b'"image_id"', b'"width"', b'"url"'))]


@lru_cache(maxsize=1)
def _images(files: tuple[Path, ...]) -> dict[Any, tuple[str, tuple[float, float] | None]]:
    """Path and size of each image by its number."""
    entries = (line.value for file in files for line in json_stream.entries(file))
    return {
        entry.get("image_id"): (urlsplit(str(entry.get("url") or "")).path, stated_size(entry))
        for entry in entries
        if isinstance(entry, Mapping)
    }


def _record(file: Path, number: int, entry: Mapping[str, Any], known: Mapping, options: Options) -> SourceRecord:
    first = next((one for one in entry["regions"] if isinstance(one, Mapping)), {})
    image = next((entry[name] for name in ("id", "image_id") if name in entry), first.get("image_id"))
    url, size = known.get(image, ("", None))
    path = "/".join(url.split("/")[-2:]) or f"{image}.jpg"
    names = dict.fromkeys([path, Path(path).name, *(f"{folder}/{Path(path).name}" for folder in _FOLDERS)])
    regions = [_region(one) if isinstance(one, Mapping) else one for one in entry["regions"]]
    return SourceRecord(path, file.name, number, image_file(options, file, *names), {"bbox_info": regions}, size)


def _region(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"bbox": [one.get(side) for side in _SIDES], "short_expr": one.get("phrase")}
