"""Writes a folder whole or not at all, with a manifest by which damage is found later."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "manifest.json"
"""File in the folder, written last: what the folder says of itself, and size and SHA-256 of every other file."""
_PARTIAL, _BEFORE = "partial", "before"


class DamagedError(ValueError):
    """A folder does not hold what its manifest says."""


@contextmanager
def replacing_folder(final: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Yields an empty temporary folder to fill; on success it takes the place of ``final``, on an error it is removed.

    All bytes are on the disk before the name is. A folder that stands there already is moved aside for the moment
    between two renames; :func:`current` and :func:`tidy` find it there.

    Args:
        final: the folder; those above it are made.
        facts: plain values for the manifest.

    Raises:
        OSError: something could not be written.
    """
    partial, before = _hidden(final, _PARTIAL), _hidden(final, _BEFORE)
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        _seal(partial, facts)
        if final.exists():
            _remove(before)
            os.rename(final, before)
        os.rename(partial, final)
    except BaseException:
        if before.exists() and not final.exists():
            os.rename(before, final)
        shutil.rmtree(partial, ignore_errors=True)
        raise
    flush(final.parent)
    shutil.rmtree(before, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder; its name goes first, so that no half of it ever stands there."""
    partial = _hidden(folder, _PARTIAL)
    _remove(partial)
    os.rename(folder, partial)
    shutil.rmtree(partial)


def current(final: Path) -> Path:
    """The folder of that name, or where it lies while another takes its place."""
    before = _hidden(final, _BEFORE)
    return before if before.is_dir() and not final.exists() else final


def tidy(parent: Path) -> None:
    """Undo or end what a kill has interrupted: half-written folders go, one that was moved aside gets its name back."""
    for path in [*parent.glob(f".*.{_PARTIAL}"), *parent.glob(f".*.{_BEFORE}")]:
        final = path.with_name(path.name[1:].rpartition(".")[0])
        if path.name.endswith(_BEFORE) and not final.exists():
            os.rename(path, final)
        else:
            _remove(path)


def verified(folder: Path) -> dict[str, Any]:
    """Compare a folder with its manifest, and return what that says beside the list of files.

    Raises:
        DamagedError: a file is missing, or has another size or other bytes; the message names it.
    """
    manifest = read_manifest(folder)
    for name, entry in manifest.pop("files").items():
        check_file(folder, name, entry)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a folder.

    Raises:
        DamagedError: it is missing, cannot be read, or was changed.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        whole = manifest.pop("manifest_sha256") == _digest_of(manifest)
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise DamagedError(f"{path} cannot be read: {error!r}") from None
    if not whole:
        raise DamagedError(f"{path} was changed after it was written")
    return manifest


def check_file(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Compare a file of a folder with its entry in the manifest.

    Raises:
        DamagedError: it is missing, or has another size or other bytes.
    """
    path = folder / name
    if not path.is_file():
        raise DamagedError(f"{path} is missing")
    if (size := path.stat().st_size) != entry["size"]:
        raise DamagedError(f"{path} must have {entry['size']} bytes, got {size}")
    if _sha256(path) != entry["sha256"]:
        raise DamagedError(f"{path} has other bytes than were written")


def flush(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Flush all files and folders, and write the manifest after them."""
    files = {}
    for path in sorted(folder.rglob("*")):
        flush(path)
        if path.is_file():
            name = str(PurePosixPath(path.relative_to(folder)))
            files[name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    manifest = {**facts, "files": files}
    sealed = {**manifest, "manifest_sha256": _digest_of(manifest)}
    path = folder / MANIFEST
    path.write_bytes(json.dumps(sealed, indent=1).encode() + b"\n")
    flush(path)
    flush(folder)


def _digest_of(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def _hidden(final: Path, kind: str) -> Path:
    return final.with_name(f".{final.name}.{kind}")


def _remove(path: Path) -> None:
    """Remove a folder or a file, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
