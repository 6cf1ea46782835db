"""Parquet files and folders of Hugging Face datasets, with image bytes or paths in the table; pyarrow reads them."""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from fgclip_fast.data.causes import NO_IMAGE, BadRecord
from fgclip_fast.data.importers.source import Options, Source, SourceRecord, head, image_file, stated_size
from fgclip_fast.data.importers.table_columns import Columns, columns, fields

_ROWS = 512  # whose texts are held at a time


class TableCell(NamedTuple):
    """An image in a table: bytes, or the path of a file."""

    path: Path
    group: int
    row: int
    column: str
    options: Options

    def read(self) -> bytes:
        """Return the image file's bytes."""
        value = _cells(self.path, self.group, self.column)[self.row].as_py()
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            return image_file(self.options, self.path, value).read()
        if value is None:
            raise BadRecord(NO_IMAGE, f"the column {self.column} is empty")
        return value


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source holds tables."""
    files = _files(source)
    found = columns(_names(files[0]), options) if files else None
    return f"{len(files)} table files, {files[0].name} with {found.words()}" if found else None


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read the rows of all tables."""
    for file in _files(source):
        found = columns(_names(file), options)
        if found is not None:
            number = 0
            for group, start, rows in _batches(file, found):
                for i, row in enumerate(rows):
                    number += 1
                    yield _record(file, number, (group, start + i), row, found, options)


def _record(
    file: Path, number: int, at: tuple[int, int], row: dict[str, Any], found: Columns, options: Options
) -> SourceRecord:
    path = row.get(found.image)
    path = path.get("path") if isinstance(path, dict) else path
    key = next(
        (str(name) for name in (path, row.get("key"), row.get("id")) if name is not None), f"{file.name}:{number}"
    )
    image = TableCell(file, *at, found.image, options)
    made = fields([row], found, options, _categories(file))
    # img2dataset keeps a row for what could not be downloaded.
    failed = row.get("error_message") if row.get("status") not in (None, "success") else None
    bad = (NO_IMAGE, str(failed)) if failed else None
    return SourceRecord(key, file.name, number, image, made, stated_size(row), bad)


def _files(source: Source) -> tuple[Path, ...]:
    parquet = tuple(file for file in source.ending(".parquet") if head(file).startswith(b"PAR1"))
    return parquet or tuple(file for file in source.ending(".arrow") if not file.name.startswith("cache-"))


def _pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise ValueError("data import: tables need pyarrow; pip install 'fgclip_fast[tables]'") from None


def _schema(file: Path) -> Any:
    _pyarrow()
    import pyarrow.parquet

    return pyarrow.parquet.read_schema(file) if file.suffix == ".parquet" else _arrow(file).schema


def _names(file: Path) -> list[str]:
    return list(_schema(file).names)


@lru_cache(maxsize=8)
def _categories(file: Path) -> list[str] | None:
    """Names of the classes of ``objects``, from what Hugging Face's library writes into a schema."""
    metadata = (_schema(file).metadata or {}).get(b"huggingface")
    return _class_names(json.loads(metadata)) if metadata else None


def _class_names(value: Any) -> list[str] | None:
    if isinstance(value, dict):
        if value.get("_type") == "ClassLabel":
            return value.get("names")
        return next((names for entry in value.values() if (names := _class_names(entry))), None)
    if isinstance(value, list):
        return next((names for entry in value if (names := _class_names(entry))), None)
    return None


def _batches(file: Path, found: Columns) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
    """Rows without their image bytes, with their group and the number of the first in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(file)
    kind = schema.field(found.image).type
    light = [name for name in schema.names if name != found.image and not _is_bytes(schema.field(name).type)]
    if file.suffix == ".parquet":
        opened = pq.ParquetFile(file)
        wanted = light + ([f"{found.image}.path"] if pa.types.is_struct(kind) else [])
        wanted += [found.image] if not (pa.types.is_struct(kind) or _is_bytes(kind)) else []
        for group in range(opened.num_row_groups):
            start = 0
            for batch in opened.iter_batches(_ROWS, row_groups=[group], columns=wanted):
                yield group, start, batch.to_pylist()
                start += len(batch)
        return
    for group in range(len(_arrow(file).batches)):
        batch = _arrow(file).batches[group].select(light)
        rows = batch.to_pylist()
        if pa.types.is_struct(kind):
            paths = _arrow(file).batches[group].column(found.image).field("path")
            rows = [row | {found.image: {"path": path}} for row, path in zip(rows, paths.to_pylist(), strict=True)]
        yield group, 0, rows


def _is_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_binary(kind) or types.is_large_binary(kind)


class _Arrow(NamedTuple):
    schema: Any
    batches: list[Any]
    """Mapped from the file, not in memory."""


@lru_cache(maxsize=4)
def _arrow(file: Path) -> _Arrow:
    import pyarrow as pa

    mapped = pa.memory_map(str(file))
    if head(file).startswith(b"ARROW1"):
        opened = pa.ipc.open_file(mapped)
        return _Arrow(opened.schema, [opened.get_batch(i) for i in range(opened.num_record_batches)])
    stream = pa.ipc.open_stream(mapped)
    return _Arrow(stream.schema, list(stream))


@lru_cache(maxsize=2)
def _cells(path: Path, group: int, column: str) -> Any:
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        return pq.ParquetFile(path).read_row_group(group, columns=[column]).column(0).combine_chunks()
    return _arrow(path).batches[group].column(column)
