"""The first pass over records, in worker processes: can each be used, what do its boxes say, which image is equal?"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fgclip_fast.data.causes import BadRecord
from fgclip_fast.data.decode import decode
from fgclip_fast.data.duplicates import SIZE, digest_of, hashes_of
from fgclip_fast.data.importers.box_unit import Evidence, evidence
from fgclip_fast.data.importers.picture import Picture, picture, view_of
from fgclip_fast.data.importers.source import SPLITS, SourceRecord
from fgclip_fast.data.records import parse
from fgclip_fast.files.whole_file import replacing
from fgclip_fast.inputs.boxes import BadBox, numbers


class Refusal(NamedTuple):
    """A record that cannot be used, or a part of it that was dropped: one line of ``refused.csv``."""

    record: int
    """Number of the record in the source, from 0."""
    part: str
    """``record`` or ``region``."""
    key: str
    file: str
    line: int
    cause: str
    detail: str


class Views(NamedTuple):
    """Number of turned images whose boxes refer to each view, as far as their sizes tell."""

    upright: int = 0
    stored: int = 0
    unknown: int = 0
    example: str = ""
    """Key of an image whose view is unknown."""


class Images(NamedTuple):
    """Usability, digests, hashes and splits of the images of some records, in their order."""

    good: np.ndarray
    """bool [N]: the record can be used."""
    digests: np.ndarray
    """uint8 [N, 16] of the image files."""
    hashes: np.ndarray
    """uint64 [N, 3] of the images, as decoded."""
    split: np.ndarray
    """int8 [N]: position in :data:`~fgclip_fast.data.importers.source.SPLITS` as the source states it, else -1."""


class Looked(NamedTuple):
    """The result of looking at some records."""

    images: Images
    refused: Sequence[Refusal] = ()
    boxes: Evidence = Evidence()
    unknown: tuple[Evidence, Evidence] = (Evidence(), Evidence())
    """Evidence of the boxes whose view is unknown: if they are upright, and if they are stored."""
    views: Views = Views()
    regions: int = 0
    """Regions of all usable records."""

    def then(self, later: "Looked", images: Images) -> "Looked":
        """Return the counts of both, with the images and the refused records given or of the later one."""
        upright, stored, unknown = (a + b for a, b in zip(self.views[:3], later.views[:3], strict=True))
        views = Views(upright, stored, unknown, self.views.example or later.views.example)
        of_upright, of_stored = (a.plus(b) for a, b in zip(self.unknown, later.unknown, strict=True))
        boxes, regions = self.boxes.plus(later.boxes), self.regions + later.regions
        return Looked(images, later.refused, boxes, (of_upright, of_stored), views, regions)


def look_at(records: Sequence[tuple[int, SourceRecord]], path: Path) -> list[Refusal]:
    """Look at some records, keep the result in a file, and return the refused ones."""
    looked = _looked(records)
    notes = json.dumps([looked.refused, looked.boxes, looked.unknown, looked.views, looked.regions]).encode()
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, notes=np.frombuffer(notes, np.uint8), **looked.images._asdict())
    return list(looked.refused)


def kept(paths: Iterable[Path]) -> Looked:
    """Read the results of :func:`look_at` from their files, as one."""
    whole, images = Looked(_empty(0)), [_empty(0)]
    refused: list[Refusal] = []
    for path in paths:
        part = _load(path)
        whole = whole.then(part, whole.images)
        images.append(part.images)
        refused += part.refused
    joined = Images(*(np.concatenate(arrays) for arrays in zip(*images, strict=True)))
    return whole._replace(images=joined, refused=refused)


def replaced(looked: Looked, later: Looked) -> Looked:
    """Put the results of another look at the refused records in their place."""
    refused = ~looked.images.good
    arrays = [array.copy() for array in looked.images]
    for array, new in zip(arrays, later.images, strict=True):
        array[refused] = new
    return looked.then(later, Images(*arrays))


def box_numbers(fields: Any) -> list[list[float]]:
    """The boxes of a record that are four finite numbers."""
    found = []
    for region in regions_of(fields):
        try:
            box = [float(number) for number in numbers(region.get("bbox"))]
        except (BadBox, OverflowError):  # OverflowError: an integer beyond fp64
            continue
        if all(map(math.isfinite, box)):
            found.append(box)
    return found


def regions_of(fields: Any) -> list[Mapping[str, Any]]:
    """The regions of a record that are objects."""
    entries = fields.get("bbox_info") if isinstance(fields, Mapping) else None
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


def _load(path: Path) -> Looked:
    with np.load(path) as file:
        refused, boxes, (upright, stored), views, regions = json.loads(file["notes"].tobytes())
        images = Images(*(file[name] for name in Images._fields))
    unknown = Evidence(*upright), Evidence(*stored)
    return Looked(images, [Refusal(*entry) for entry in refused], Evidence(*boxes), unknown, Views(*views), regions)


def _empty(count: int) -> Images:
    hashes, split = np.zeros((count, 3), np.uint64), np.full(count, -1, np.int8)
    return Images(np.zeros(count, bool), np.zeros((count, 16), np.uint8), hashes, split)


def _looked(records: Sequence[tuple[int, SourceRecord]]) -> Looked:
    images = _empty(len(records))
    refused: list[Refusal] = []
    boxes, views, regions = Evidence(), Counter[str](), 0
    upright, stored = Evidence(), Evidence()
    example = ""
    for i, (number, record) in enumerate(records):
        try:
            encoded, found = checked(record)
            own = box_numbers(record.fields)
            view = view_of(found, record.size) if own else None
            own_hashes = hashes_of(decode(encoded, SIZE))
        except BadRecord as bad:
            refused.append(refusal(number, record, bad.cause, bad.detail))
            continue
        digest = digest_of(encoded)
        images.good[i], images.digests[i] = True, np.frombuffer(digest, np.uint8)
        images.hashes[i] = own_hashes
        images.split[i] = -1 if record.split is None else SPLITS.index(record.split)
        regions += len(regions_of(record.fields))
        if own and found.orientation != 1:
            views[view or "unknown"] += 1
            example = example or ("" if view else record.key)
        if view:
            boxes = boxes.plus(evidence(own, *(record.size or found.size(view))))
        elif own:
            upright = upright.plus(evidence(own, *(record.size or found.size("upright"))))
            stored = stored.plus(evidence(own, *(record.size or found.size("stored"))))
    return Looked(images, refused, boxes, (upright, stored), Views(**views, example=example), regions)


def refusal(number: int, record: SourceRecord, cause: str, detail: str, part: str = "record") -> Refusal:
    """A line of ``refused.csv``."""
    return Refusal(number, part, record.key, record.file, record.line, cause, detail)


def checked(record: SourceRecord) -> tuple[bytes, Picture]:
    """Read a record's image and header, and check its texts.

    Raises:
        BadRecord: it cannot be used.
    """
    if record.bad is not None:
        raise BadRecord(*record.bad)
    assert record.image is not None
    encoded = record.image.read()
    found = picture(encoded)
    parse(record.fields)
    return encoded, found
