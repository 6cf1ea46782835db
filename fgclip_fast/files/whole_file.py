"""Writes a file whole or not at all: under a temporary name beside it, then renamed."""

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PARTIAL = re.compile(r"\..+\.\d+\.partial")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write; on success it replaces ``path``, on an error it is deleted.

    The name holds the process id, so that two processes may write the same file at once: one of them wins, whole.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def partials(folder: Path, *, below: bool = False) -> list[Path]:
    """List the temporary files of :func:`replacing` in a folder, and in those below it if asked.

    A process that was killed has left them, if none is at work there.
    """
    found = folder.rglob(".*.partial") if below else folder.glob(".*.partial")
    return [path for path in found if _PARTIAL.fullmatch(path.name)]


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes text (as UTF-8) or bytes to ``path``."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, values: Any, indent: int | None = 1) -> None:
    """Writes ``values`` as JSON to ``path``; floats that JSON lacks, NaN and the infinities, become null."""
    write_whole(path, json.dumps(finite(values), indent=indent, allow_nan=False) + "\n")


def finite(values: Any) -> Any:
    """A copy of nested dicts, lists and tuples in which NaN and infinite floats are None."""
    if isinstance(values, dict):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
