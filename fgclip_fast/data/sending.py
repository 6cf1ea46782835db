"""Files that go to object storage by fsspec, each whole or not at all."""

import os
import posixpath
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fgclip_fast.data.remote import cached, system_of
from fgclip_fast.data.tries import tried

FINAL = (PermissionError, FileNotFoundError, NotImplementedError)
"""Errors of a storage that another try does not help."""
_STALE = 86400.0  # seconds after which what a killed process has left is deleted


@contextmanager
def sent(url: str) -> Iterator[Path]:
    """Yields a path of this machine to write; on success the file is sent to ``url``, on an error it is deleted.

    Raises:
        OSError: as :func:`send`, or ``FGCLIP_CACHE`` cannot be written.
    """
    folder = cached("outgoing")
    folder.mkdir(parents=True, exist_ok=True)
    _delete_stale(folder)
    with TemporaryDirectory(dir=folder) as own:
        path = Path(own) / posixpath.basename(url)
        yield path
        send(path, url)


def send(path: Path, url: str) -> None:
    """Send a file; what the storage holds there is replaced.

    Raises:
        ValueError: fsspec or the package of the protocol is missing.
        OSError: the storage cannot be written, or holds something else than was sent, though tried several times.
    """
    system, target = system_of(url)
    try:
        tried(lambda: _put(system, path, target), FINAL)
    except Exception as error:  # each storage raises its own
        raise OSError(f"{url} cannot be written: {type(error).__name__}: {error}; the same command goes on") from error


def _put(system: Any, path: Path, target: str) -> None:
    if "file" in system.protocol:  # a disk, which shows what is there so far; a storage shows what is whole
        partial = f"{target}.{os.getpid()}.partial"
        system.put_file(str(path), partial)
        system.mv(partial, target)
    else:
        system.put_file(str(path), target)
    size = system.info(target)["size"]
    if size != path.stat().st_size:  # or another process has sent its own in between
        raise OSError(f"must have {path.stat().st_size} bytes, got {size}")


def _delete_stale(folder: Path) -> None:
    for left in folder.iterdir():
        try:
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:  # another process is done with it
            pass
