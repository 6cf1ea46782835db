"""Shards in object storage, by fsspec: whole copies in a folder of bounded size, made when a shard is first needed.

A remote shard is known by the path of its copy. Beside that path lies a note, ``NAME.tar.remote``, with its URL and
state, so that any process that holds the path can make the copy. A copy that was evicted is made again, with the same
bytes, so neither the order of samples nor a resumed run depends on what the folder holds. Notes and indexes stay.
"""

import fcntl
import hashlib
import json
import logging
import os
import posixpath
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from fgclip_fast.home_cache import home_cache
from fgclip_fast.whole_file import replacing, write_json, write_whole

log = logging.getLogger(__name__)
NOTE = ".remote"
"""End of the name of the file beside a copy that says where it comes from."""
_TRIES = 6
_WAIT = 1.0  # seconds after the first failure, doubled after each
_STALE = 3600.0  # seconds after which a file of a download that was killed is deleted
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
    note = _note(shard)
    if note is not None:
        return State(note["size"], note["mtime_ns"])
    found = shard.stat()
    return State(found.st_size, found.st_mtime_ns)


@contextmanager
def held(shard: Path) -> Iterator[None]:
    """Keep a shard from being evicted; if it is remote and has no copy, one is made first, and others are evicted.

    Raises:
        RemoteError: it cannot be fetched, though tried several times.
    """
    note = _note(shard)
    if note is None:
        yield
        return
    with ExitStack() as stack:
        try:
            os.utime(_note_of(shard))
            lock = stack.enter_context(_lock_of(shard).open("w"))
            _lock_copy(shard, note, lock)
        except RemoteError:
            raise
        except OSError as error:
            raise RemoteError(f"shards: {shard.parent.parent} cannot hold copies of remote shards: {error}") from error
        yield


def warn_of_little_room(shards: Sequence[Path], together: int) -> None:
    """Warn if the copies of remote shards that are read together take more space than they may."""
    sizes = sorted((note["size"] for shard in among(shards) if (note := _note(shard)) is not None), reverse=True)
    needed = sum(sizes[:together])
    if needed > limit():
        log.warning("data: %d shards are read together, %.1f GB of copies, but FGCLIP_CACHE_GB allows %.1f: they will"
                    " be fetched again and again; raise it, or take fewer data.lanes or a smaller data.window",
                    min(together, len(sizes)), needed / 1e9, limit() / 1e9)  # fmt: skip


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


def is_evicted(shard: Path, descriptor: int) -> bool:
    """True if an open file is a copy that was evicted: closing it gives its space back."""
    return os.fstat(descriptor).st_nlink == 0 and _note_of(shard).exists()


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
    system, path = _system(pattern)
    try:
        if "*" in path or "?" in path:
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
        return fsspec.filesystem(protocol)
    except (ImportError, ValueError) as error:  # its message names the package
        raise ValueError(f"shards: {protocol}:// cannot be read: {error}") from None


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there."""
    system = _filesystem(url.partition("://")[0])
    return system, system._strip_protocol(url)


def _noted(url: str, about: Mapping[str, Any]) -> Path:
    """Note a remote shard; return the path of its copy."""
    size = about.get("size")
    if not isinstance(size, int):
        raise ValueError(f"shards: {url} must have a size, but its server does not tell one")
    folder, name = posixpath.split(url)
    version = next((str(about[key]) for key in _VERSIONS if about.get(key)), "")
    digest = hashlib.sha256(f"{url} {size} {version}".encode()).digest()
    # Another version has another time, by which copies and indexes are told apart; as a date it means nothing. Some
    # file systems keep every second second only.
    note = {"url": url, "size": size, "mtime_ns": int.from_bytes(digest[:4], "big") // 4 * 2 * 10**9}
    shard = _folder() / hashlib.sha256(folder.encode()).hexdigest()[:16] / name
    if _note(shard) != note:
        shard.parent.mkdir(parents=True, exist_ok=True)
        _fetch_index(shard, note, _beside(folder))
        write_json(_note_of(shard), note)
    return shard


def _fetch_index(shard: Path, note: Mapping[str, Any], beside: Collection[str]) -> None:
    """Copy what is stored beside a shard and tells its samples: its index, or img2dataset's number of them.

    Without either, the first start reads the whole shard.
    """
    system, path = _system(note["url"])
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
    system, path = _system(folder)
    try:
        return frozenset(posixpath.basename(name.rstrip("/")) for name in system.ls(path, detail=False))
    except Exception:  # each storage raises its own
        return frozenset()


def _lock_copy(shard: Path, note: Mapping[str, Any], lock: IO[str]) -> None:
    """Lock a copy against eviction, after it is made where it is missing."""
    fcntl.flock(lock, fcntl.LOCK_SH)
    while not _is_copy(shard, note):
        fcntl.flock(lock, fcntl.LOCK_EX)  # given up between, so another process may have made the copy
        if not _is_copy(shard, note):
            _evict(shard.parent.parent, limit() - note["size"])
            _fetch(shard, note)
            if not _is_copy(shard, note):
                raise OSError("a file must keep the time that it is given")
        fcntl.flock(lock, fcntl.LOCK_SH)


def _fetch(shard: Path, note: Mapping[str, Any]) -> None:
    system, path = _system(note["url"])
    for attempt in range(_TRIES):
        try:
            with replacing(shard) as partial:
                system.get_file(path, str(partial))
                if partial.stat().st_size != note["size"]:
                    raise OSError(f"must have {note['size']} bytes, got {partial.stat().st_size}")
                os.utime(partial, ns=(note["mtime_ns"], note["mtime_ns"]))
            return
        except Exception as error:  # each storage raises its own
            if attempt == _TRIES - 1:
                raise RemoteError(
                    f"shards: {note['url']} cannot be fetched: {type(error).__name__}: {error}; --resume goes on"
                ) from error
            time.sleep(_WAIT * 2**attempt)


def _evict(folder: Path, bound: int) -> None:
    """Delete copies, of those that are not held the ones not used for the longest time, until ``bound`` bytes stay."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for partial in folder.glob("*/.*.partial"):
            with suppress(FileNotFoundError):
                if time.time() - partial.stat().st_mtime > _STALE:
                    partial.unlink()
        sizes = {copy: copy.stat().st_size for copy in folder.glob("*/*.tar")}
        total = sum(sizes.values())
        for copy in sorted(sizes, key=lambda copy: _note_of(copy).stat().st_mtime_ns):
            if total <= bound:
                break
            if _deleted(copy):
                total -= sizes[copy]


def _deleted(copy: Path) -> bool:
    with _lock_of(copy).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        copy.unlink()
        return True


def _folder() -> Path:
    return Path(os.environ.get("FGCLIP_CACHE") or home_cache() / "fgclip_fast") / "shards"


def _note_of(shard: Path) -> Path:
    return shard.with_name(f"{shard.name}{NOTE}")


def _lock_of(shard: Path) -> Path:
    return shard.with_name(f".{shard.name}.lock")


def _note(shard: Path) -> dict[str, Any] | None:
    try:
        return json.loads(_note_of(shard).read_bytes())
    except FileNotFoundError:
        return None


def _is_copy(shard: Path, note: Mapping[str, Any]) -> bool:
    try:
        found = shard.stat()
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime_ns) == (note["size"], note["mtime_ns"])
