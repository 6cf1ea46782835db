"""The index of a shard: first byte and length of each sample, found by one scan of the tar headers and kept in a file.

An index file holds six int64 (mark; size and mtime of the shard; number N of samples; first damaged byte, or -1; number
P of spans) and then ``[P, 2]`` int64: first byte and length of each span, headers included. A span is a sample; only
where the members of a sample lie apart, P is above N, and ``[N + 1]`` int64 follow: where each sample's spans begin,
and P. The file lies beside its shard or, if that
folder is read-only, in the user's cache folder. An index whose size or mtime differs from the shard's is made anew.
"""

import hashlib
import json
import logging
import os
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fgclip_fast.data import remote
from fgclip_fast.data.copies import held
from fgclip_fast.data.remote import State
from fgclip_fast.data.tar import Damaged, members, split
from fgclip_fast.files.home_cache import cache_of
from fgclip_fast.files.whole_file import write_whole

MARK = int.from_bytes(b"fgindex2", "little")
"""First number of an index file."""
_HEADER = struct.Struct("=6q")  # mark, size and time of the shard, samples, damaged_at, spans
_FEW, _READERS = 256, 32  # shards of a thread's turn, and threads
_NEAR = 2e-4  # seconds that reading an index file takes on a local disk, and more

log = logging.getLogger(__name__)


class Index(NamedTuple):
    """The place of each sample in a shard."""

    spans: np.ndarray
    """[P, 2] int64: first byte, length; those of a sample follow each other."""
    damaged_at: int
    """First byte that cannot be read as tar, or -1."""
    starts: np.ndarray | None = None
    """[N + 1] int64: where each sample's spans begin, and P; None: each sample is one span."""

    @property
    def samples(self) -> int:
        """Number N of samples."""
        return len(self.spans if self.starts is None else self.starts[1:])

    def spans_of(self, sample: int) -> list[list[int]]:
        """First byte and length of each span of a sample."""
        first, last = (sample, sample + 1) if self.starts is None else self.starts[sample : sample + 2].tolist()
        spans: list[list[int]] = self.spans[first:last].tolist()
        return spans


class Extent(NamedTuple):
    """Number of samples of a shard, known without opening it."""

    samples: int
    size: int
    """Bytes of the shard."""
    damaged_at: int = -1
    """First byte that cannot be read as tar, or -1."""


def index(shard: Path) -> Index:
    """Read the index of a shard from its file if that is up to date, else make and keep it.

    Raises:
        ValueError: not a tar file. A tar that ends early gives its readable part.
    """
    state = remote.state(shard)
    for file in _candidates(shard):
        kept = _header(file, state)
        if kept is not None:
            return _read(file, kept)
    with held(shard):
        made = scan(shard)
    _keep(shard, state, made)
    return made


def extent(shard: Path) -> Extent:
    """Count the samples of a shard: from its index, from img2dataset's ``_stats.json``, or by making the index."""
    state = remote.state(shard)
    for file in _candidates(shard):
        kept = _header(file, state)
        if kept is not None:
            return kept
    successes = _successes(shard)
    if successes is not None:
        return Extent(successes, state.size)
    made = index(shard)
    return Extent(made.samples, state.size, made.damaged_at)


def extents(shards: Sequence[Path]) -> Iterator[Extent]:
    """As :func:`extent` for each shard, in order, quickly for many: each folder is listed once to see what it holds."""
    beside = remote.names_beside(shards, (".index", remote.NOTE))

    def read(shard: Path) -> Extent:
        path = str(shard)
        file = f"{path}.index"
        if file in beside and f"{path}{remote.NOTE}" not in beside:
            found = os.stat(path)
            kept = _header(file, State(found.st_size, found.st_mtime_ns))
            if kept is not None:
                return kept
        return extent(shard)

    began = time.monotonic()
    yield from map(read, shards[:_FEW])
    parts = [shards[first : first + _FEW] for first in range(_FEW, len(shards), _FEW)]
    # On a file system far away each read waits; on one that is near, threads would only take turns.
    waits = time.monotonic() - began > _FEW * _NEAR
    with ThreadPoolExecutor(_READERS if waits else 1) as pool:
        for found in pool.map(lambda part: [*map(read, part)], parts):
            yield from found


def scan(shard: Path) -> Index:
    """Read the headers of a shard from the first to the last, or to the first damaged one.

    Members with one key are a sample, also where others lie between them; but a key that comes again with the same part
    begins another sample.
    """
    spans: list[list[int]] = []  # first byte, length, sample
    known: dict[str, tuple[int, set[str]]] = {}
    samples, damaged_at = 0, -1
    with shard.open("rb", buffering=0) as file:
        descriptor, end = file.fileno(), os.fstat(file.fileno()).st_size
        last_key = None
        try:
            for member in members(lambda at, size: os.pread(descriptor, size, at), end):
                key, part = split(member.name)
                if key is None:
                    continue
                if key != last_key:
                    if key not in known or part in known[key][1]:
                        known[key], samples = (samples, set()), samples + 1
                    spans.append([member.start, 0, known[key][0]])
                    last_key = key
                known[key][1].add(part)
                spans[-1][1] = member.after - spans[-1][0]
        except Damaged as damage:
            if not spans:
                raise _not_a_tar(shard, damage) from None
            damaged_at = damage.at
    table = np.array(spans, np.int64).reshape(-1, 3)
    if len(table) == samples:
        return Index(table[:, :2].copy(), damaged_at)
    table = table[table[:, 2].argsort(kind="stable")]
    return Index(table[:, :2].copy(), damaged_at, np.searchsorted(table[:, 2], np.arange(samples + 1)))


def _successes(shard: Path) -> int | None:
    """Number of samples that img2dataset reports to have written, in ``000017_stats.json`` beside ``000017.tar``."""
    try:
        successes = json.loads(shard.with_name(f"{shard.stem}_stats.json").read_bytes())["successes"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return successes if isinstance(successes, int) else None


def _not_a_tar(shard: Path, damage: Damaged) -> ValueError:
    with shard.open("rb") as file:
        gzip = file.read(2) == b"\x1f\x8b"
    return ValueError(f"{shard}: {'compressed; unpack it first' if gzip else 'not a tar file'} ({damage})")


def _candidates(shard: Path) -> list[Path]:
    """Paths of its index: beside the shard, and in the cache folder if the account has one."""
    beside = shard.with_name(f"{shard.name}.index")
    try:
        cache = cache_of("index")
    except FileNotFoundError:
        return [beside]
    digest = hashlib.sha256(str(shard.absolute()).encode("utf-8", "surrogateescape")).hexdigest()
    return [beside, cache / f"{digest[:32]}.index"]


def _header(file: Path | str, state: State) -> Extent | None:
    """The extent that an index file states; None if it is missing or out of date."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        head, size = os.pread(descriptor, _HEADER.size, 0), os.fstat(descriptor).st_size
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if len(head) < _HEADER.size:
        return None
    mark, *told, samples, damaged_at, spans = _HEADER.unpack(head)
    if mark != MARK or told != [state.size, state.mtime_ns]:
        return None
    starts = samples + 1 if spans != samples else 0
    return Extent(samples, state.size, damaged_at) if size == _HEADER.size + 8 * (2 * spans + starts) else None


def _read(file: Path, kept: Extent) -> Index:
    if not kept.samples:
        return Index(np.zeros((0, 2), np.int64), kept.damaged_at)
    content = np.asarray(np.memmap(file, np.int64, "r"))  # a plain view, since memmap's own indexing is slow
    spans = int(content[5])
    starts = content[6 + 2 * spans :] if spans != kept.samples else None
    return Index(content[6 : 6 + 2 * spans].reshape(-1, 2), kept.damaged_at, starts)


def _keep(shard: Path, state: State, made: Index) -> None:
    numbers = [MARK, state.size, state.mtime_ns, made.samples, made.damaged_at, len(made.spans)]
    content = np.array(numbers, np.int64).tobytes() + made.spans.tobytes()
    if made.starts is not None:
        content += made.starts.astype(np.int64).tobytes()
    for file in _candidates(shard):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, content)
            return
        except OSError:
            continue
    log.info("%s: no folder to keep its index in; it is made again at each start", shard)
