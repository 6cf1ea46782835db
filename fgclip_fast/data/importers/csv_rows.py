"""CSV and TSV with a header: open_clip's ``filepath`` and ``title``, Flickr30k's ``results.csv``, or named columns."""

import codecs
import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from fgclip_fast.data.causes import NO_IMAGE, NOT_UTF8, WRONG_TYPE
from fgclip_fast.data.importers.json_stream import encoding
from fgclip_fast.data.importers.source import Options, Source, SourceRecord, head, image_file, stated_size
from fgclip_fast.data.importers.table_columns import IMAGE_COLUMNS, Columns, columns, fields, number

__all__ = ["IMAGE_COLUMNS", "read", "recognise"]
_DELIMITERS = "\t,;|"
_BAD = "\ufffd"  # what a byte that is not of the encoding becomes
csv.field_size_limit(2**27)


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source holds CSV."""
    for file in _files(source):
        found = _columns(file, options)
        if found is not None:
            return f"{file.name}: a header with {found.words()}"
    return None


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read the rows; consecutive rows of one image are one record with several captions."""
    for file in _files(source):
        found = _columns(file, options)
        if found is not None:
            image = found.image
            for _, rows in groupby(_rows(file), lambda row, image=image: row[1].get(image)):  # type: ignore[misc]
                yield _record(file, list(rows), found, options)


def _files(source: Source) -> list[Path]:
    named = source.ending(".csv", ".tsv", ".tab") or tuple(path for path in source.paths if path.is_file())
    return [file for file in named if b"\0" not in head(file) or encoding(head(file)) == "utf-16"]


def _header(file: Path) -> tuple[list[str], str]:
    line = (head(file).decode(encoding(head(file)), "replace").splitlines() or [""])[0]
    delimiter = max(_DELIMITERS, key=line.count)
    return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])], delimiter


def _columns(file: Path, options: Options) -> Columns | None:
    names, _ = _header(file)
    return columns(names, options)


def _rows(file: Path) -> Iterator[tuple[int, dict]]:
    names, delimiter = _header(file)
    with codecs.open(str(file), encoding=encoding(head(file)), errors="replace") as lines:
        reader = csv.reader(lines, delimiter=delimiter)
        next(reader)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                row = dict(zip(names, map(str.strip, cells), strict=False))
                yield reader.line_num, row | ({None: len(cells)} if len(cells) > len(names) else {})


def _record(file: Path, rows: list[tuple[int, dict]], found: Columns, options: Options) -> SourceRecord:
    line, row = rows[0]
    path = row.get(found.image) or ""
    place = path, file.name, line
    if None in row:
        bad = (
            WRONG_TYPE,
            f"a row must have the columns of the header, got {row[None]}; a text with delimiters needs quotes",
        )
        return SourceRecord(*place, None, None, bad=bad)
    if not path:
        return SourceRecord(*place, None, None, bad=(NO_IMAGE, f"the column {found.image} is empty"))
    if any(_BAD in str(value) for _, each in rows for value in each.values()):
        return SourceRecord(*place, None, None, bad=(NOT_UTF8, "save the file as UTF-8"))
    size = stated_size({name: number(row.get(name)) for name in ("width", "height")})
    made = fields([each for _, each in rows], found, options)
    return SourceRecord(*place, image_file(options, file, path), made, size)
