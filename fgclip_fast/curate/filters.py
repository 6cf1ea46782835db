"""The stage *filter*: leave out what would teach something wrong, and count each cause."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fgclip_fast.config.rules import Share, ShareOrZero
from fgclip_fast.curate import boxes, texts
from fgclip_fast.curate.lexicon.truth import is_true_of
from fgclip_fast.curate.records import expression, has_negatives, regions_of
from fgclip_fast.curate.stage import Done, Item, LeftOut, LeftRegion, Stage
from fgclip_fast.data.causes import NO_IMAGE, NO_TEXT, BadRecord
from fgclip_fast.data.decode import decode
from fgclip_fast.data.duplicates import SIZE, digest_of, groups, hashes_of
from fgclip_fast.data.negatives import distinct, normal_form
from fgclip_fast.data.records import IMAGE_NAMES, part_name
from fgclip_fast.data.shards import Sample
from fgclip_fast.inputs.boxes import Box, checked, numbers

NEAR_DUPLICATE = "image equal or nearly equal to an earlier one"
TRUE_NEGATIVE = "negative that is true"
TRUE_OF_ANOTHER = "negative that another text says of the same box"
_MARK = 40  # bytes of a digest and three hashes
_SAME_BOX = 0.5  # overlap of boxes that show one thing


@dataclass(frozen=True, kw_only=True)
class Filter(Stage):
    """Leaves out bad captions, boxes, negatives, and images that repeat an earlier one."""

    name: ClassVar[str] = "filter"

    language: str = "en"
    """ISO 639-1 code of the language of captions; empty: any."""
    smallest: ShareOrZero[float] = 0.001
    """Share of the image below which a box is tiny."""
    largest: Share[float] = 0.95
    """Share of the image above which a box covers everything."""
    overlap: Share[float] = 0.9
    """Overlap (IoU) from which on the later of two boxes is a duplicate."""
    duplicates: bool = True
    """Leave out images that are equal or nearly equal to an earlier one."""

    @property
    def looks(self) -> bool:
        """Only duplicates need a first pass."""
        return self.duplicates

    def look(self, samples: Iterable[Sample]) -> Any:
        """Digests and hashes of all images as one hexadecimal number, and the numbers of those that have none."""
        marks = [_mark(sample) for sample in samples]
        without = [number for number, one in enumerate(marks) if one is None]
        return {"marks": b"".join(one for one in marks if one is not None).hex(), "without": without}

    def decide(self, found: Iterable[tuple[str, Any]]) -> Any:
        """The numbers of the samples in each shard that repeat an earlier one."""
        numbers: dict[str, np.ndarray] = {}
        marks = bytearray()  # of millions of images, so nothing else is kept of each
        for shard, of_shard in found:
            marks += bytes.fromhex(of_shard["marks"])
            total = len(of_shard["marks"]) // (2 * _MARK) + len(of_shard["without"])
            numbers[shard] = np.delete(np.arange(total, dtype=np.int32), of_shard["without"])
        array = np.frombuffer(marks, np.uint8).reshape(-1, _MARK)
        first = groups(array[:, :16], np.ascontiguousarray(array[:, 16:]).view(">u8").astype(np.uint64))
        ends = np.cumsum([len(of_shard) for of_shard in numbers.values()])
        again = np.split(first != np.arange(len(first)), ends[:-1])
        return {
            shard: of_shard[repeats].tolist()
            for (shard, of_shard), repeats in zip(numbers.items(), again, strict=True)
            if repeats.any()
        }

    def function(self, known: Any) -> Callable[[Item], Done]:
        """Filters one record."""
        repeated = {shard: frozenset(numbers) for shard, numbers in (known or {}).items()}

        def filtered(item: Item) -> Done:
            if item.number in repeated.get(item.shard, ()):
                raise LeftOut(NEAR_DUPLICATE)
            counts: Counter[str] = Counter()
            fields = self._captions(item.fields, counts)
            left_out = list(self._regions(fields, counts))
            return Done(fields, counts, tuple(left_out))

        return filtered

    def _captions(self, fields: dict[str, Any], counts: Counter[str]) -> dict[str, Any]:
        """Take out a short caption with a fault; a record whose long caption has one is left out."""
        long, short = (fields.get(name) if isinstance(fields.get(name), str) else "" for name in _CAPTIONS)
        if long and (fault := texts.fault_of(long, self.language)):
            raise LeftOut(f"caption: {fault}", long)
        if short and (fault := texts.fault_of(short, self.language)):
            if not long:
                raise LeftOut(f"short caption: {fault}", short)
            counts[f"short captions dropped: {fault}"] += 1
            fields = {name: value for name, value in fields.items() if name != "short_caption"}
        return fields

    def _regions(self, fields: dict[str, Any], counts: Counter[str]) -> Iterator[LeftRegion]:
        """Keep the good regions of a record, and yield the others with their causes."""
        kept: list[_Boxed] = []
        for i, region in regions_of(fields):
            counts["regions"] += 1
            cause = self._fault(region, kept)
            if cause is None:
                kept.append((region, checked(numbers(region["bbox"]))))
                continue
            counts["regions dropped"] += 1
            counts[f"regions dropped: {cause}"] += 1
            yield LeftRegion(i, cause, expression(region))
        for region, box in kept:
            others = [other for other, at in kept if other is not region and boxes.overlap(box, at) >= _SAME_BOX]
            _negatives(region, others, counts)
        if "bbox_info" in fields:
            fields["bbox_info"] = [region for region, _ in kept]

    def _fault(self, region: dict[str, Any], kept: list["_Boxed"]) -> str | None:
        if not expression(region) and not region.get("long_expr"):
            return NO_TEXT
        fault = boxes.fault_of(region.get("bbox"), self.smallest, self.largest)
        if fault is None and kept:
            box = checked(numbers(region["bbox"]))
            if any(boxes.overlap(box, other) >= self.overlap for _, other in kept):
                return boxes.DUPLICATE
        return fault


_CAPTIONS = ("caption", "short_caption")
_Boxed = tuple[dict[str, Any], Box]  # a region and its box, checked


def _negatives(region: dict[str, Any], same: list[dict[str, Any]], counts: Counter[str]) -> None:
    """Keep the negatives of a region that are false of it and different; ``same`` are other regions of its box."""
    given = region.get("short_expr_negs")
    if not has_negatives(region) or not isinstance(given, dict | list):
        return
    text = expression(region)
    written = [one for one in (given.values() if isinstance(given, dict) else given) if isinstance(one, str)]
    different, defects = distinct(text, written)
    counts.update(f"negatives dropped: {defect.cause}" for defect in defects)
    others = {normal_form(expression(other)) for other in same}
    kept = []
    for negative in different:
        cause = TRUE_OF_ANOTHER if normal_form(negative) in others else None
        if cause is None and is_true_of(text, negative):
            cause = TRUE_NEGATIVE
        counts.update([f"negatives dropped: {cause}"] if cause else ["negatives"])
        kept += [] if cause else [negative]
    counts["groups"] += bool(kept)
    region["short_expr_negs"] = {str(n): negative for n, negative in enumerate(kept)}
    region["flag_short_neg"] = int(bool(kept))


def _mark(sample: Sample) -> bytes | None:
    """The digest and the hashes of an image; None if it cannot be decoded."""
    name = part_name(sample.parts, IMAGE_NAMES)
    try:
        if name is None:
            raise BadRecord(NO_IMAGE)
        encoded = sample.parts[name]
        hashes = hashes_of(decode(encoded, SIZE))
    except BadRecord:
        return None
    return digest_of(encoded) + np.array(hashes, ">u8").tobytes()
