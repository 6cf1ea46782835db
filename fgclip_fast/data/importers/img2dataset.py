"""img2dataset's output as it is: tars, or folders, of images with a ``.txt`` or ``.json`` of the same name.

(Its parquet output is a table, which :mod:`fgclip_fast.data.importers.arrow_tables` reads.)
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from fgclip_fast.data.causes import DAMAGED_SHARD, NO_IMAGE, NOT_JSON, NOT_UTF8
from fgclip_fast.data.copies import held
from fgclip_fast.data.importers.source import FilePart, Options, Source, SourceRecord, captioned, stated_size
from fgclip_fast.data.records import IMAGE_NAMES, captions_of_file
from fgclip_fast.data.tar import Damaged, members, split

_TEXTS = ("txt", "text", "caption", "caption.txt")
_NUMBERS = re.compile(r"[\d\s.eE+-]*")
_TRIED = 20
_JSONS = ("json", "meta.json")


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source holds images beside their texts."""
    tars = source.ending(".tar")
    if tars:
        return f"{len(tars)} tar files"
    for record in islice(_of_folders(source), _TRIED):
        short, long = ((record.fields or {}).get(name) for name in ("short_caption", "caption"))
        # Rows of numbers beside an image are labels of a detector, such as YOLO's.
        if (isinstance(short, str) and not _NUMBERS.fullmatch(short)) or isinstance(long, str):
            return f"images with a caption in a .txt or .json of the same name, such as {record.key}"
    return None


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read the samples of all tars, or all images of the folders that have a text."""
    tars = source.ending(".tar")
    for tar in tars:
        yield from _of_tar(tar)
    if not tars:
        yield from _of_folders(source)


def _of_tar(tar: Path) -> Iterator[SourceRecord]:
    """Samples in the order of their first member; members of one sample need not be consecutive."""
    samples: dict[str, dict[str, FilePart]] = {}
    damage = None
    with held(tar), tar.open("rb") as file:

        def read_at(at: int, size: int) -> bytes:
            file.seek(at)
            return file.read(size)

        try:
            for member in members(read_at, tar.stat().st_size):
                key, kind = split(member.name)
                if key is not None:
                    samples.setdefault(key, {}).setdefault(kind, FilePart(tar, member.body, member.size))
        except Damaged as damaged:
            damage = str(damaged)
    for number, (key, parts) in enumerate(samples.items(), start=1):
        yield _record(key, (tar.name, number), parts)
    if damage is not None:
        yield SourceRecord("", tar.name, len(samples) + 1, None, None, bad=(DAMAGED_SHARD, damage))


def _of_folders(source: Source) -> Iterator[SourceRecord]:
    samples: dict[str, dict[str, FilePart]] = {}
    for file in source.files:
        key, kind = split(file.name)
        if key is not None and (kind in IMAGE_NAMES or kind in _TEXTS or kind in _JSONS):
            samples.setdefault(str(file.parent / key), {})[kind] = FilePart(file, 0, -1)
    for number, (key, parts) in enumerate(samples.items(), start=1):
        if any(kind in IMAGE_NAMES for kind in parts):
            folder = Path(key).parent
            yield _record(Path(key).name, (folder.name, number), parts)


def _record(key: str, place: tuple[str, int], parts: Mapping[str, FilePart]) -> SourceRecord:
    image = next((part for kind, part in parts.items() if kind.rpartition(".")[2] in IMAGE_NAMES), None)
    if image is None:
        return SourceRecord(key, *place, None, None, bad=(NO_IMAGE, f"the sample holds {', '.join(parts)}"))
    fields: dict[str, Any] = {}
    try:
        described = next((parts[kind].read() for kind in _JSONS if kind in parts), b"{}")
        loaded = json.loads(described.decode("utf-8-sig"))
        fields = dict(loaded) if isinstance(loaded, dict) else {}
        text = next((parts[kind].read() for kind in _TEXTS if kind in parts), None)
        if text is not None and not fields.get("short_caption"):
            fields = _with_text(fields, text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return SourceRecord(key, *place, None, None, bad=(NOT_UTF8, f"byte {error.start}"))
    except ValueError as error:
        return SourceRecord(key, *place, None, None, bad=(NOT_JSON, str(error)))
    if isinstance(fields.get("caption"), str) and fields["caption"] == fields.get("short_caption"):
        del fields["caption"]  # img2dataset writes the caption twice; as a long one it is a filled one
    return SourceRecord(key, *place, image, fields, stated_size(fields) if "bbox_info" in fields else None)


def _with_text(fields: dict[str, Any], text: str) -> dict[str, Any]:
    """Add the captions of a text file; a ``caption`` of the JSON that is no text, such as a number, yields to them."""
    own = fields.get("caption")
    made = captioned(captions_of_file(text, own))
    if isinstance(own, str | list) and own:
        made["caption"] = own
    return {**{name: value for name, value in fields.items() if name != "caption"}, **made}
