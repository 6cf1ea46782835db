"""What a stage reads, in portions that become one shard each: shards, or images in folders."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fgclip_fast.data import remote
from fgclip_fast.data.causes import NO_IMAGE, BadRecord
from fgclip_fast.data.importers import img2dataset
from fgclip_fast.data.importers.picture import picture
from fgclip_fast.data.importers.source import FilePart, Options, Source, SourceRecord
from fgclip_fast.data.records import IMAGE_NAMES
from fgclip_fast.data.shards import Sample, Shard


class Unit(Protocol):
    """A portion of the input."""

    @property
    def name(self) -> str:
        """File name of the shard that it becomes."""

    @property
    def path(self) -> Path | None:
        """The shard that it is; None if it is none."""

    def state(self) -> Any:
        """Sizes and times of its files, as JSON, by which a change is noticed."""

    def samples(self) -> Iterator[Sample]:
        """Read its samples, each time in the same order."""

    def damaged(self) -> bool:
        """True if it ends early."""


class ShardUnit(NamedTuple):
    """A shard; a remote one is copied by the machine that reads it."""

    path: Path
    note: Mapping[str, Any] | None = None
    """Where a remote one is, and its size and time: what another machine needs to make its own copy."""

    @property
    def name(self) -> str:
        """File name of the shard."""
        return self.path.name

    def state(self) -> Any:
        """Size and time of the shard."""
        return list(remote.state(self.path)) if self.note is None else [self.note["size"], self.note["mtime_ns"]]

    def samples(self) -> Iterator[Sample]:
        """Read its samples."""
        shard = self._opened()
        yield from (shard.read(i) for i in range(len(shard)))

    def damaged(self) -> bool:
        """True if the tar file ends early."""
        return self._opened().damaged

    def _opened(self) -> Shard:
        return Shard(self.path if self.note is None else remote.noted(self.note))


class ImagesUnit(NamedTuple):
    """Images that lie in files or tars, with what stands beside them; their samples have a number as key."""

    name: str
    first: int
    """Number of the first image."""
    records: tuple[SourceRecord, ...]
    path: Path | None = None

    def state(self) -> Any:
        """A digest of the files' names, sizes and times."""
        files = dict.fromkeys(record.image.path for record in self.records if isinstance(record.image, FilePart))
        states = ((str(path), *remote.state(path)) for path in files if path.exists())
        return hashlib.blake2b(repr([*states]).encode(), digest_size=16).hexdigest()

    def samples(self) -> Iterator[Sample]:
        """Read the images; the record of each has the texts beside it, and the place that it came from."""
        for number, record in enumerate(self.records, start=self.first):
            yield Sample(f"{number:08d}", _parts(record))

    def damaged(self) -> bool:
        """False."""
        return False


def _parts(record: SourceRecord) -> dict[str, bytes]:
    """The image, under its kind, and the record; the record alone, with the reason, if the image cannot be read."""
    place: dict[str, Any] = {"key": record.key, "file": record.file, "line": record.line}
    fields = dict(record.fields) if record.fields else {}
    try:
        if record.bad is not None or record.image is None:
            raise BadRecord(*(record.bad or (NO_IMAGE,)))
        encoded = record.image.read()
        parts = {picture(encoded).kind: encoded}
    except BadRecord as bad:
        place |= {"cause": bad.cause, "detail": bad.detail}
        parts = {}
    return {**parts, "json": json.dumps(fields | {"source": place}).encode()}


def images_in(source: Path, shard_size: int) -> list[ImagesUnit]:
    """Divide the images of a folder, or of the tars in it, among shards ``images-00000.tar``, ….

    Args:
        source: a folder, or a tar file. A ``.txt`` or ``.json`` beside an image gives its texts.
        shard_size: images of a shard.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it holds no image.
    """
    given = Source((source,))
    records = tuple(img2dataset.read(given, Options()))
    if not records:
        raise ValueError(f"curate images: {source} holds no image, none of {', '.join(IMAGE_NAMES)}")
    starts = range(0, len(records), shard_size)
    return [
        ImagesUnit(f"images-{number:05d}.tar", start, records[start : start + shard_size])
        for number, start in enumerate(starts)
    ]


def shards_of(paths: Sequence[Path]) -> list[ShardUnit]:
    """The units of some shards."""
    far = set(remote.among(paths))
    return [ShardUnit(path, remote.note_of(path) if path in far else None) for path in paths]
