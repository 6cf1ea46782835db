"""The index of a shard: first byte and length of each sample, found by one scan of the tar headers and kept in a file.

An index file holds five int64 (mark; size and mtime of the shard; number of samples; first damaged byte, or -1) and
then ``[N, 2]`` int64: first byte and length of each sample, headers included. It lies beside its shard or, if that
folder is read-only, in the user's cache folder. An index whose size or mtime differs from the shard's is made anew.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fgclip_fast.whole_file import write_whole

BLOCK = 512
"""Bytes of a tar header, and the unit of padding."""
MARK = int.from_bytes(b"fgindex1", "little")
"""First number of an index file."""
_FILES = (b"0", b"\0", b"7")  # types of a regular file; writers use all three
_LONG_NAMES = (b"x", b"L")  # pax and GNU: the content of such a member names the next one
_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)")

log = logging.getLogger(__name__)


class Index(NamedTuple):
    """The spans of a shard's samples."""

    spans: np.ndarray
    """[N, 2] int64: first byte, length."""
    damaged_at: int
    """First byte that cannot be read as tar, or -1."""


class Extent(NamedTuple):
    """Number of samples of a shard, known without opening it."""

    samples: int
    damaged_at: int = -1
    """First byte that cannot be read as tar, or -1."""


class Member(NamedTuple):
    """One file in a tar: ``[start, after)`` with its headers and padding, ``[body, body + size)`` its content."""

    name: str
    start: int
    body: int
    size: int
    after: int


class Damaged(ValueError):
    """A tar that cannot be read to its end; ``at`` is the first byte of the member that fails."""

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(f"byte {at}: {reason}")
        self.at = at


def index(shard: Path) -> Index:
    """Read the index of a shard from its file if that is up to date, else make and keep it.

    Raises:
        ValueError: not a tar file. A tar that ends early gives its readable part.
    """
    state = shard.stat()
    for file in _candidates(shard):
        kept = _header(file, state)
        if kept is not None:
            empty = np.zeros((0, 2), np.int64)
            spans = np.memmap(file, np.int64, "r", 40, (kept.samples, 2)) if kept.samples else empty
            return Index(np.asarray(spans), kept.damaged_at)  # a plain view, since memmap's own indexing is slow
    made = scan(shard)
    _keep(shard, state, made)
    return made


def extent(shard: Path) -> Extent:
    """Count the samples of a shard: from its index, from img2dataset's ``_stats.json``, or by making the index."""
    state = shard.stat()
    for file in _candidates(shard):
        kept = _header(file, state)
        if kept is not None:
            return kept
    successes = _successes(shard)
    if successes is not None:
        return Extent(successes)
    made = index(shard)
    return Extent(len(made.spans), made.damaged_at)


def scan(shard: Path) -> Index:
    """Read the headers of a shard from the first to the last, or to the first damaged one."""
    spans: list[list[int]] = []
    last_key, damaged_at = None, -1
    with shard.open("rb", buffering=0) as file:
        descriptor, end = file.fileno(), os.fstat(file.fileno()).st_size
        try:
            for member in members(lambda at, size: os.pread(descriptor, size, at), end):
                key, _ = split(member.name)
                if key is not None and key != last_key:
                    spans.append([member.start, 0])
                    last_key = key
                if key is not None:
                    spans[-1][1] = member.after - spans[-1][0]
        except Damaged as damage:
            if not spans:
                raise _not_a_tar(shard, damage) from None
            damaged_at = damage.at
    return Index(np.array(spans, np.int64).reshape(-1, 2), damaged_at)


def members(read: Callable[[int, int], bytes], end: int) -> Iterator[Member]:
    """Yield the regular files of a tar of ``end`` bytes; ``read(at, size)`` returns some of them."""
    start, at, long_name = 0, 0, None
    while at < end:
        header = read(at, BLOCK)
        if header == bytes(BLOCK):
            return  # the end-of-archive mark
        size, kind = _checked_size(header, at), header[156:157]
        body, after = at + BLOCK, at + BLOCK + -(-size // BLOCK) * BLOCK
        if body + size > end:
            raise Damaged(start, f"a member of {size} bytes, but {end - body} are left")
        if kind in _LONG_NAMES:
            long_name = _long_name(kind, read(body, size)) or long_name
            at = after
            continue
        if kind in _FILES:
            yield Member(long_name or _name(header), start, body, size, after)
        start, at, long_name = after, after, None


def split(name: str) -> tuple[str | None, str]:
    """Split a name: ``folder/000017.seg.png`` -> ``("folder/000017", "seg.png")``; key None if hidden or nameless."""
    match = _KEY.fullmatch(name)
    return (match[1], match[2].lower()) if match else (None, "")


def _checked_size(header: bytes, at: int) -> int:
    if len(header) < BLOCK:
        raise Damaged(at, "the file ends within a header")
    try:
        if int(header[148:156].strip(b" \0") or b"0", 8) != sum(header[:148]) + 8 * 32 + sum(header[156:]):
            raise ValueError
        field = header[124:136]
        size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else int(field.strip(b" \0") or b"0", 8)
        if size < 0:
            raise ValueError
        return size
    except ValueError:
        raise Damaged(at, "not a tar header") from None


def _name(header: bytes) -> str:
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    whole = prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name
    return whole.decode("utf-8", "surrogateescape")


def _long_name(kind: bytes, body: bytes) -> str | None:
    if kind == b"L":
        return body.split(b"\0")[0].decode("utf-8", "surrogateescape")
    match = re.search(rb"(?:^|\n)\d+ path=([^\n]*)\n", body)
    return match[1].decode("utf-8", "surrogateescape") if match else None


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


def _candidates(shard: Path) -> tuple[Path, Path]:
    """Paths of its index: beside the shard, and in the cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fgclip_fast" / "index"
    digest = hashlib.sha256(str(shard.absolute()).encode("utf-8", "surrogateescape")).hexdigest()
    return shard.with_name(f"{shard.name}.index"), cache / f"{digest[:32]}.index"


def _header(file: Path, state: os.stat_result) -> Extent | None:
    """The extent that an index file states; None if it is missing or out of date."""
    try:
        head, size = np.fromfile(file, np.int64, 5), file.stat().st_size
    except OSError:
        return None
    if len(head) < 5 or head[:3].tolist() != [MARK, state.st_size, state.st_mtime_ns] or size != 40 + 16 * head[3]:
        return None
    return Extent(int(head[3]), int(head[4]))


def _keep(shard: Path, state: os.stat_result, made: Index) -> None:
    head = np.array([MARK, state.st_size, state.st_mtime_ns, len(made.spans), made.damaged_at], np.int64)
    for file in _candidates(shard):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, head.tobytes() + made.spans.tobytes())
            return
        except OSError:
            continue
    log.info("%s: no folder to keep its index in; it is made again at each start", shard)
