"""Read every record of a data set once, in worker processes, and keep what its figures need: no image stays."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fgclip_fast.data.causes import BadRecord
from fgclip_fast.data.decode import decode, sides
from fgclip_fast.data.duplicates import SIZE, Hashes, digest_of, hashes_of
from fgclip_fast.data.negatives import normal_form
from fgclip_fast.data.processes import cores, in_order
from fgclip_fast.data.records import Record, parse_sample, part_name
from fgclip_fast.data.shards import Shard
from fgclip_fast.inputs.boxes import BadBox, numbers
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.inspection.texts import SIGNS, signs_of
from fgclip_fast.process.progress import Progress

_GREY = 2  # of 255: what the JPEG decoder fills in for missing rows varies by no more
_CHUNK = 256  # records of a task
_BAD_KEPT = 5  # addresses of each cause and task
_UNCUT = 2**31 - 1


class Address(NamedTuple):
    """A sample: position of its shard among all, and number in the shard, from 0."""

    shard: int
    sample: int


@dataclass(frozen=True)
class Settings:
    """The model and the batch that figures refer to.

    Attributes:
        image_size: side of the model's square input, pixels.
        patch_size: side of a patch, pixels.
        short_prefix: put before each short caption, as in training.
    """

    image_size: int = 224
    patch_size: int = 16
    short_prefix: str = "a photo of "


class Part(NamedTuple):
    """Facts about some records of one shard."""

    addresses: list[Address]
    """Of the usable records, [N]."""
    images: np.ndarray
    """int32 [N, 2]: width and height, pixels."""
    digests: np.ndarray
    """uint8 [N, 16] of the image files."""
    hashes: np.ndarray
    """uint64 [N, 3], as data/duplicates.py makes them."""
    regions: np.ndarray
    """int32 [N]: regions of each image."""
    boxes: np.ndarray
    """float32 [R, 4]: of all regions, in patches of the model: width and height; then area as a share; negatives."""
    lengths: dict[str, np.ndarray]
    """Tokens of each text, BOS and EOS included: "short", "long", "region" and "negative"."""
    texts: Counter[str]
    """Short captions and region texts, in normal form."""
    captions: Counter[str]
    """Short captions, in normal form."""
    signs: Counter[str]
    """Numbers of texts, boxes and images that look wrong, by sign."""
    examples: dict[str, str]
    """One text of each sign."""
    causes: Counter[str]
    """Records left out, regions dropped, texts filled."""
    bad: dict[str, list[tuple[Address, str]]]
    """Up to five records of each cause, with the detail."""


@dataclass(frozen=True)
class Survey:
    """Facts about all records of a data set.

    Attributes:
        settings: what they refer to.
        shards: all shards, in order.
        split: of each shard: the part of its name before the number, such as "train".
        part: the facts.
    """

    settings: Settings
    shards: list[Path]
    split: list[str]
    part: Part

    @property
    def splits(self) -> list[str]:
        """Names of the splits, in the order of the shards."""
        return list(dict.fromkeys(self.split))


def survey(
    shards: Sequence[Path], settings: Settings | None = None, *, workers: int | None = None, limit: int | None = None
) -> Survey:
    """Read the records of some shards.

    Args:
        shards: in order.
        settings: what the figures refer to.
        workers: processes; by default one for each core.
        limit: records of each shard at most.

    Raises:
        ValueError: no record is usable.
        OSError: a shard cannot be read.
    """
    settings = settings or Settings()
    tasks = [
        (number, path, start, min(start + _CHUNK, samples), settings)
        for number, path in enumerate(shards)
        for samples in [min(len(Shard(path)), _UNCUT if limit is None else limit)]
        for start in range(0, samples, _CHUNK)
    ]
    parts, processes = [], min(workers or cores(), max(1, len(tasks)))
    progress = Progress(len(tasks))
    for done, part in enumerate(in_order(_look, tasks, processes, "data inspect"), start=1):
        parts.append(part)
        progress.update(done, f"parts of up to {_CHUNK} records read")
    progress.close()
    names = [re.sub(r"[-_]?\d+$", "", path.stem) or "data" for path in shards]
    whole = _joined(parts) if parts else None
    if whole is None or not whole.addresses:
        causes = ", ".join(f"{n} x {cause}" for cause, n in whole.causes.most_common()) if whole else "no sample"
        raise ValueError(f"data inspect: no record of {len(shards)} shards is usable: {causes}")
    return Survey(settings, list(shards), names, whole)


def _look(number: int, path: Path, start: int, stop: int, settings: Settings) -> Part:
    shard, tokenizer, found = Shard(path), Tokenizer(), _Facts(settings)
    for i in range(start, stop):
        address, image = Address(number, i), b""
        try:
            parts = shard.read(i).parts
            image, record = parse_sample(parts)
            found.add(address, image, record, parts)
        except BadRecord as bad:
            found.refuse(address, bad.cause, str(bad))
    return found.part(tokenizer)


class _Facts:
    """Collects the facts of one task."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rows: list[tuple[Address, tuple[int, int], bytes, Hashes, int]] = []
        self._boxes: list[tuple[float, float, float, float]] = []
        self._texts: dict[str, list[str]] = {"short": [], "long": [], "region": [], "negative": []}
        self._signs: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._causes: Counter[str] = Counter()
        self._bad: dict[str, list[tuple[Address, str]]] = {}

    def refuse(self, address: Address, cause: str, detail: str) -> None:
        """Count a record that cannot be used."""
        self._causes[cause] += 1
        kept = self._bad.setdefault(cause, [])
        if len(kept) < _BAD_KEPT:
            kept.append((address, detail))

    def add(self, address: Address, image: bytes, record: Record, parts: Mapping[str, bytes]) -> None:
        """Keep the facts of a record whose image can be decoded.

        Raises:
            BadRecord: it cannot.
        """
        small, size = decode(image, SIZE), sides(image)
        digest = digest_of(image)
        self._rows.append((address, size, digest, hashes_of(small), len(record.regions)))
        self._signs[SIGNS.grey] += bool(((small[:, -SIZE // 6 :].int() - 128).abs() <= _GREY).all())
        self._signs[SIGNS.small] += min(size) < self._settings.image_size
        self._causes.update(defect.cause for defect in record.defects)
        grid = self._settings.image_size / self._settings.patch_size
        for x0, y0, x1, y1 in (region.box for region in record.regions):
            inside = (min(1.0, x1) - max(0.0, x0)) * (min(1.0, y1) - max(0.0, y0))
            self._boxes.append(((x1 - x0) * grid, (y1 - y0) * grid, inside, 0.0))
        self._read_texts(record)
        if (name := part_name(parts, ("json",))) is not None:
            self._read_boxes(parts[name])

    def _read_texts(self, record: Record) -> None:
        self._texts["short"].append(record.short)
        self._texts["long"].append(record.long)
        for place, region in enumerate(record.regions, start=len(self._boxes) - len(record.regions)):
            self._texts["region"].append(region.short)
            self._texts["negative"] += region.negatives
            self._boxes[place] = (*self._boxes[place][:3], float(len(region.negatives)))
            own = normal_form(region.short)
            for negative in map(normal_form, region.negatives):
                if f" {own} " in f" {negative} ":
                    self._note(SIGNS.contained, f"{region.short} / {negative}")
        for defect in record.defects:
            if defect.cause == SIGNS.equal:  # dropped by the record's own rule
                self._note(SIGNS.equal, defect.detail)
        for text in (record.short, record.long, *(text for region in record.regions for text in region[1:3])):
            for sign in signs_of(text):
                self._note(sign, text)

    def _read_boxes(self, raw: bytes) -> None:
        """Count the boxes of a record as they are written, those that are dropped included."""
        entries = json.loads(raw.decode("utf-8-sig", "replace")).get("bbox_info") or []
        for entry in entries if isinstance(entries, list) else []:
            try:
                x0, y0, x1, y1 = numbers(entry.get("bbox") if isinstance(entry, Mapping) else None)
            except BadBox:
                continue
            self._signs[SIGNS.boxes] += 1
            if max(x0, y0, x1, y1) > 2:
                self._signs[SIGNS.thousandths if max(x0, y0, x1, y1) <= 1000 else SIGNS.pixels] += 1
            elif (x1 <= x0 or y1 <= y0) and x0 + x1 <= 1.05 and y0 + y1 <= 1.05:
                self._note(SIGNS.sizes, f"{[round(float(side), 3) for side in (x0, y0, x1, y1)]}")

    def _note(self, sign: str, example: str) -> None:
        self._signs[sign] += 1
        self._examples.setdefault(sign, example)

    def part(self, tokenizer: Tokenizer) -> Part:
        """All facts, as arrays."""
        shorts = [self._settings.short_prefix + text for text in self._texts["short"]]
        rows = self._rows
        captions = Counter(map(normal_form, self._texts["short"]))
        return Part(
            [row[0] for row in rows],
            np.array([row[1] for row in rows], np.int32).reshape(-1, 2),
            np.frombuffer(b"".join(row[2] for row in rows), np.uint8).reshape(-1, 16),
            np.array([row[3] for row in rows], np.uint64).reshape(-1, 3),
            np.array([row[4] for row in rows], np.int32),
            np.array(self._boxes, np.float32).reshape(-1, 4),
            {kind: _lengths(tokenizer, shorts if kind == "short" else texts) for kind, texts in self._texts.items()},
            captions + Counter(map(normal_form, self._texts["region"])),
            captions,
            self._signs,
            self._examples,
            self._causes,
            self._bad,
        )


def _lengths(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    offsets = tokenizer(texts, _UNCUT).offsets.tolist()
    return np.array([b - a for a, b in pairwise(offsets)], np.int32)


def _joined(parts: Sequence[Part]) -> Part:
    """One part of several, in order."""
    examples: dict[str, str] = {}
    bad: dict[str, list[tuple[Address, str]]] = {}
    for part in parts:
        examples = {**part.examples, **examples}
        for cause, found in part.bad.items():
            bad[cause] = (bad.get(cause, []) + found)[:_BAD_KEPT]
    arrays = ("images", "digests", "hashes", "regions", "boxes")
    counters = ("texts", "captions", "signs", "causes")
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    joined |= {name: _total(getattr(part, name) for part in parts) for name in counters}
    lengths = {kind: np.concatenate([part.lengths[kind] for part in parts]) for kind in parts[0].lengths}
    addresses = [address for part in parts for address in part.addresses]
    return Part(addresses=addresses, lengths=lengths, examples=examples, bad=bad, **joined)


def _total(counters: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total
