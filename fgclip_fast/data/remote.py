"""Shards in object storage, by fsspec: where they are, and what the storage tells of them.

A remote shard is known by the path of its copy. Beside that path lies a note, ``NAME.tar.remote``, with its URL and
state, so that any process that holds the path can make the copy (copies.py).
"""

import hashlib
import json
import os
import posixpath
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fgclip_fast.files.home_cache import home_cache
from fgclip_fast.files.whole_file import write_json, write_whole

NOTE = ".remote"
"""End of the name of the file beside a copy that says where it comes from."""
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "checksum", "LastModified", "last_modified", "mtime", "created")


class RemoteError(OSError):
    """A shard that cannot be fetched, which ends a run: no sample may take another's place. ``--resume`` goes on."""


class State(NamedTuple):
    """Size and time of a shard, by which its index is known to be up to date."""

    size: int
    mtime_ns: int


def is_url(pattern: str) -> bool:
    """True for ``s3://bucket/set/*.tar`` and the like."""
    return "://" in pattern


def listed(pattern: str) -> list[Path]:
    """List the shards of a URL, in order, as the paths of their copies.

    Args:
        pattern: URL of a tar file, of a folder (its ``*.tar``), or with ``*`` and ``?``.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: fsspec or the package of the protocol is missing.
        OSError: the storage cannot be read.
    """
    limit()  # so that a wrong value is told now
    files = _files(pattern if pattern.endswith(".tar") or "*" in pattern else f"{pattern.rstrip('/')}/*.tar")
    if not files:
        raise FileNotFoundError(f"shards: {pattern} names no tar file")
    return [_noted(url, found) for url, found in sorted(files.items())]


def state(shard: Path) -> State:
    """Size and time of a shard, also of a remote one without a copy."""
    note = note_of(shard)
    if note is not None:
        return State(note["size"], note["mtime_ns"])
    found = shard.stat()
    return State(found.st_size, found.st_mtime_ns)


def address(shard: Path) -> str:
    """The URL of a remote shard; the path of a file of this machine."""
    note = note_of(shard)
    return str(shard) if note is None else note["url"]


def among(shards: Sequence[Path]) -> list[Path]:
    """List the remote ones of some shards; each folder is read once."""
    noted = names_beside(shards, (NOTE,))
    return [shard for shard in shards if f"{shard}{NOTE}" in noted] if noted else []


def names_beside(shards: Sequence[Path], suffixes: tuple[str, ...]) -> set[str]:
    """List the files in the folders of shards whose names end so."""
    found: set[str] = set()
    for folder in {path.rpartition(os.sep)[0] for path in map(str, shards)}:
        with suppress(OSError):  # what cannot be listed may be read all the same
            names = [name for name in os.listdir(folder or os.curdir) if name.endswith(suffixes)]
            found.update(f"{folder}{os.sep}{name}" for name in names) if folder else found.update(names)
    return found


def limit() -> int:
    """Bytes that copies may take: ``FGCLIP_CACHE_GB``, by default 50 GB.

    Raises:
        ValueError: the variable is not a number above 0.
    """
    given = os.environ.get("FGCLIP_CACHE_GB", "50")
    try:
        size = float(given)
    except ValueError:
        size = 0.0
    if not size > 0:
        raise ValueError(f"shards: FGCLIP_CACHE_GB must be a number of gigabytes above 0, got {given!r}")
    return int(size * 1e9)


def _files(pattern: str) -> dict[str, Mapping[str, Any]]:
    """URL → what the storage tells of it."""
    system, path = system_of(pattern)
    try:
        if "*" in path or "?" in path:
            system.invalidate_cache()  # another process may have written there
            found = system.glob(path, detail=True)
            files = {name: about for name, about in found.items() if about["type"] == "file"}
            # A server's page that lists files does not tell their sizes.
            return {system.unstrip_protocol(name): about if about.get("size") else system.info(name)
                    for name, about in files.items()}  # fmt: skip
        return {pattern: system.info(path)}
    except FileNotFoundError:
        raise FileNotFoundError(f"shards: {pattern} does not exist") from None
    except Exception as error:  # each storage raises its own
        raise OSError(f"shards: {pattern} cannot be listed: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=8)
def _filesystem(protocol: str) -> Any:
    try:
        import fsspec
    except ModuleNotFoundError:
        raise ValueError(f"shards: {protocol}:// needs fsspec: pip install 'fgclip_fast[remote]'") from None
    try:
        # A disk has folders, which must be made.
        return fsspec.filesystem(protocol, **({"auto_mkdir": True} if protocol in ("file", "local") else {}))
    except (ImportError, ValueError) as error:  # its message names the package
        raise ValueError(f"shards: {protocol}:// cannot be read: {error}") from None


def system_of(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there."""
    system = _filesystem(url.partition("://")[0])
    return system, system._strip_protocol(url)


def state_there(url: str, about: Mapping[str, Any]) -> State:
    """Size and time of a file, by what the storage tells of it.

    Raises:
        ValueError: it tells no size.
    """
    size = about.get("size")
    if not isinstance(size, int):
        raise ValueError(f"shards: {url} must have a size, but its server does not tell one")
    version = next((str(about[key]) for key in _VERSIONS if about.get(key)), "")
    digest = hashlib.sha256(f"{url} {size} {version}".encode()).digest()
    # Another version has another time, by which copies and indexes are told apart; as a date it means nothing. Some
    # file systems keep every second second only.
    return State(size, int.from_bytes(digest[:4], "big") // 4 * 2 * 10**9)


def _noted(url: str, about: Mapping[str, Any]) -> Path:
    """Note a remote shard; return the path of its copy."""
    note = {"url": url, **state_there(url, about)._asdict()}
    shard = _copy_of(url)
    if note_of(shard) != note:
        shard.parent.mkdir(parents=True, exist_ok=True)
        _fetch_index(shard, note, _beside(posixpath.dirname(url)))
    return noted(note)


def noted(note: Mapping[str, Any]) -> Path:
    """Keep the note of a remote shard on this machine, which another one may have made; return the path of its copy."""
    shard = _copy_of(note["url"])
    if note_of(shard) != note:
        shard.parent.mkdir(parents=True, exist_ok=True)
        write_json(note_path(shard), note)
    return shard


def _copy_of(url: str) -> Path:
    folder, name = posixpath.split(url)
    return cached("shards") / hashlib.sha256(folder.encode()).hexdigest()[:16] / name


def _fetch_index(shard: Path, note: Mapping[str, Any], beside: Collection[str]) -> None:
    """Copy what is stored beside a shard and tells its samples: its index, or img2dataset's number of them.

    Without either, the first start reads the whole shard.
    """
    system, path = system_of(note["url"])
    index, counts = f"{path}.index", f"{path.removesuffix('.tar')}_stats.json"
    if posixpath.basename(index) in beside:
        numbers = np.frombuffer(system.cat_file(index), np.int64).copy()
        if len(numbers) > 2 and numbers[1] == note["size"]:
            numbers[2] = note["mtime_ns"]  # of the file that was indexed, there
            write_whole(shard.with_name(f"{shard.name}.index"), numbers.tobytes())
    elif posixpath.basename(counts) in beside:
        write_whole(shard.with_name(posixpath.basename(counts)), system.cat_file(counts))


@lru_cache(maxsize=8)
def _beside(folder: str) -> frozenset[str]:
    """Names of the files of a folder; empty where the storage does not list it."""
    system, path = system_of(folder)
    try:
        return frozenset(posixpath.basename(name.rstrip("/")) for name in system.ls(path, detail=False))
    except Exception:  # each storage raises its own
        return frozenset()


def cached(name: str) -> Path:
    """A folder in ``FGCLIP_CACHE``."""
    return Path(os.environ.get("FGCLIP_CACHE") or home_cache() / "fgclip_fast") / name


def note_path(shard: Path) -> Path:
    """The path of a shard's note, whether there is one or not."""
    return shard.with_name(f"{shard.name}{NOTE}")


def note_of(shard: Path) -> dict[str, Any] | None:
    """URL, size and time of a remote shard; None for a file of this machine."""
    try:
        return json.loads(note_path(shard).read_bytes())
    except FileNotFoundError:
        return None
