"""Whole copies of remote shards, in a folder of bounded size, made when a shard is first needed.

A copy that was evicted is made again, with the same bytes, so neither the order of samples nor a resumed run depends on
what the folder holds. Notes and indexes stay.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fgclip_fast.data.remote import RemoteError, among, limit, note_of, note_path, system_of
from fgclip_fast.data.tries import tried
from fgclip_fast.files.whole_file import replacing

log = logging.getLogger(__name__)
_STALE = 3600.0  # seconds after which a file of a download that was killed is deleted


@contextmanager
def held(shard: Path) -> Iterator[None]:
    """Keep a shard from being evicted; if it is remote and has no copy, one is made first, and others are evicted.

    Raises:
        RemoteError: it cannot be fetched, though tried several times.
    """
    note = note_of(shard)
    if note is None:
        yield
        return
    with ExitStack() as stack:
        try:
            os.utime(note_path(shard))
            lock = stack.enter_context(_lock_of(shard).open("w"))
            _lock_copy(shard, note, lock)
        except RemoteError:
            raise
        except OSError as error:
            raise RemoteError(f"shards: {shard.parent.parent} cannot hold copies of remote shards: {error}") from error
        yield


def warn_of_little_room(shards: Sequence[Path], together: int) -> None:
    """Warn if the copies of remote shards that are read together take more space than they may."""
    sizes = sorted((note["size"] for shard in among(shards) if (note := note_of(shard)) is not None), reverse=True)
    needed = sum(sizes[:together])
    if needed > limit():
        log.warning("data: %d shards are read together, %.1f GB of copies, but FGCLIP_CACHE_GB allows %.1f: they will"
                    " be fetched again and again; raise it, or take fewer data.lanes or a smaller data.window",
                    min(together, len(sizes)), needed / 1e9, limit() / 1e9)  # fmt: skip


def is_evicted(shard: Path, descriptor: int) -> bool:
    """True if an open file is a copy that was evicted: closing it gives its space back."""
    return os.fstat(descriptor).st_nlink == 0 and note_path(shard).exists()


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
    try:
        tried(lambda: _get(shard, note))
    except Exception as error:  # each storage raises its own
        raise RemoteError(
            f"shards: {note['url']} cannot be fetched: {type(error).__name__}: {error}; the same command goes on,"
            " training with --resume"
        ) from error


def _get(shard: Path, note: Mapping[str, Any]) -> None:
    system, path = system_of(note["url"])
    with replacing(shard) as partial:
        system.get_file(path, str(partial))
        if partial.stat().st_size != note["size"]:
            raise OSError(f"must have {note['size']} bytes, got {partial.stat().st_size}")
        os.utime(partial, ns=(note["mtime_ns"], note["mtime_ns"]))


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
        for copy in sorted(sizes, key=lambda copy: note_path(copy).stat().st_mtime_ns):
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


def _lock_of(shard: Path) -> Path:
    return shard.with_name(f".{shard.name}.lock")


def _is_copy(shard: Path, note: Mapping[str, Any]) -> bool:
    try:
        found = shard.stat()
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime_ns) == (note["size"], note["mtime_ns"])
