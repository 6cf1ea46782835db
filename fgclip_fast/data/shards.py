"""WebDataset shards, tar files whose members with one key are a sample: write, find, read."""

import glob
import io
import itertools
import os
import re
import tarfile
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from fgclip_fast.data import copies, remote
from fgclip_fast.data.causes import UNREADABLE, BadRecord
from fgclip_fast.data.index import extents, index
from fgclip_fast.data.tar import Damaged, members, split
from fgclip_fast.files.whole_file import replacing

MAX_SAMPLE = 2**29
"""Bytes of a sample at most: those of the largest image that is decoded, uncompressed."""
_STAY_OPEN = 256  # shards
_WEIGHT = r"@(\d+\.?\d*|\.\d+)"  # of a set, behind its name


class ShardWriter:
    """Writes one shard, whole or not at all.

    ``with ShardWriter(path) as shard: shard.write("000017", jpg=…, json=…)``. Equal samples give equal bytes.

    Args:
        path: the tar file to write; its folder is made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            partial = opened.enter_context(replacing(self.path))
            self._tar = opened.enter_context(tarfile.open(partial, "w", format=tarfile.PAX_FORMAT))
            self._opened = opened.pop_all()

    def write(self, key: str, **parts: bytes) -> None:
        """Append a sample; each part becomes the member ``key.name``, in the order given.

        Raises:
            ValueError: no parts, or a key with a dot or slash, where readers would split it.
        """
        if not key or "." in key or "/" in key or not parts:
            raise ValueError(f"ShardWriter: a sample must have parts and a key without '.' and '/', got {key!r}")
        for name, content in parts.items():
            member = tarfile.TarInfo(f"{key}.{name}")
            member.size = len(content)
            self._tar.addfile(member, io.BytesIO(content))

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.__exit__(kind, error, at)


def expand(pattern: str) -> list[Path]:
    """List the shards that a pattern names, in order, each once.

    Args:
        pattern: a tar file, a folder (its ``*.tar``), a glob, a brace range ``{000..999}`` or list ``{a,b}``,
            or a URL of these (``s3://bucket/set/*.tar``), whose shards are copied when they are read; several are
            separated by ``::``, and weights as of :func:`weighted` are ignored.

    Raises:
        FileNotFoundError: nothing matches, or a shard of a range is missing.
    """
    sets = [paths for _, paths in weighted(pattern)]
    return sets[0] if len(sets) == 1 else list(dict.fromkeys(itertools.chain(*sets)))


def weighted(pattern: str) -> list[tuple[float, list[Path]]]:
    """List the sets that a pattern names, each with its weight.

    Args:
        pattern: as of :func:`expand`; ``a/*.tar@2 b/*.tar@0.5`` gives sets weights, others have weight 1.

    Raises:
        FileNotFoundError: as :func:`expand`.
        ValueError: a weight is not above 0.
    """
    sets = []
    for one in re.sub(rf"{_WEIGHT}\s+", r"@\1::", pattern.strip()).split("::"):
        is_name = Path(one).expanduser().exists()
        match = None if is_name else re.fullmatch(rf"(.*){_WEIGHT}", one)
        text, weight = (match[1], float(match[2])) if match else (one, 1.0)
        if weight <= 0:
            raise ValueError(f"shards: a weight must be above 0, got {one!r}")
        found = [_paths(name, pattern) for name in _braces(text)]
        sets.append((weight, found[0] if len(found) == 1 else list(dict.fromkeys(itertools.chain(*found)))))
    return sets


def _paths(text: str, pattern: str) -> list[Path]:
    if remote.is_url(text):
        return remote.listed(text)
    path = Path(text).expanduser()
    if path.is_file():
        return [path]
    names = glob.glob(f"{glob.escape(str(path))}/*.tar" if path.is_dir() else str(path))
    found = [Path(name) for name in sorted(names, key=lambda name: name.split(os.sep))]  # as paths are sorted
    if not found:
        raise FileNotFoundError(f"shards: {pattern!r} names {text}, where no tar file exists")
    return found


def _braces(text: str) -> list[str]:
    parts = re.split(r"\{([^{}]*)\}", text)  # in turn: literal text, content of braces
    choices = [[part] if i % 2 == 0 else _choices(part) for i, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*choices)]


def _choices(inside: str) -> list[str]:
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if ends is None:
        return inside.split(",")
    width = len(ends[1]) if ends[1].startswith("0") or len(ends[1]) == len(ends[2]) else 0
    return [f"{number:0{width}d}" for number in range(int(ends[1]), int(ends[2]) + 1)]


def addresses_in(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """List (shard, sample) of all samples of some shards, both counted from 0."""
    return [(shard, sample) for shard, found in enumerate(extents(paths)) for sample in range(found.samples)]


class Sample(NamedTuple):
    """The parts that a shard holds under one key, ``{"jpg": …, "json": …}``; of equal names the first."""

    key: str
    parts: dict[str, bytes]


class Shard:
    """A shard opened for reading; it is indexed if it was not, and each sample takes one read where its members
    lie side by side."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with copies.held(path):
            self._index = index(path)
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __len__(self) -> int:
        return self._index.samples

    @property
    def evicted(self) -> bool:
        """True if it is the copy of a remote shard, and was deleted since it was opened."""
        return copies.is_evicted(self.path, self._descriptor)

    @property
    def damaged(self) -> bool:
        """True if the tar file ends early; its samples are those that are complete."""
        return self._index.damaged_at >= 0

    def read(self, i: int) -> Sample:
        """Read sample ``i``.

        Raises:
            OSError, Damaged: the file cannot be read, or has changed since it was indexed.
        """
        if i >= len(self):
            raise Damaged(0, f"no sample {i} among {len(self)}")
        parts: dict[str, bytes] = {}
        key = ""
        for start, size in self._index.spans_of(i):
            if size > MAX_SAMPLE:
                raise Damaged(start, f"a sample must have at most {MAX_SAMPLE} bytes, got {size}")
            content = os.pread(self._descriptor, size, start)
            if len(content) < size:
                raise Damaged(start, "the file has become shorter")
            for member in members(partial(_slice, content), size):
                name, kind = split(member.name)
                if name is not None:
                    key = name
                    parts.setdefault(kind, content[member.body : member.body + member.size])
        return Sample(key, parts)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def _slice(content: bytes, at: int, size: int) -> bytes:
    return content[at : at + size]


class Shards:
    """Several shards, each opened when it is first read; the 256 read last stay open.

    Args:
        paths: the tar files; a shard is addressed by its position among them.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {"_paths": self._paths, "_open": OrderedDict()}  # each process opens its own files

    def read(self, shard: int, i: int) -> Sample:
        """Read a sample.

        Raises:
            BadRecord: the shard is missing, not a tar file, or shorter than when it was counted.
        """
        try:
            return self._opened(shard).read(i)
        except remote.RemoteError:  # not a bad sample, in whose place another one would be taken
            raise
        except (OSError, ValueError) as error:
            raise BadRecord(UNREADABLE, str(error)) from None

    def name(self, shard: int, key: str | int) -> str:
        """Name a sample for messages."""
        return f"{self._paths[shard].name}, {key if isinstance(key, str) else f'sample {key}'}"

    def _opened(self, shard: int) -> Shard:
        if shard not in self._open:
            for other in [other for other, opened in self._open.items() if opened.evicted]:
                del self._open[other]
            self._open[shard] = Shard(self._paths[shard])
            if len(self._open) > _STAY_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(shard)
        return self._open[shard]
