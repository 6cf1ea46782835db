"""The second pass over records, in worker processes: write one shard whole, with a report of what was left out."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fgclip_fast.data.causes import DROPPED, BadRecord, Defect
from fgclip_fast.data.importers.box_unit import BoxUnit, as_fractions
from fgclip_fast.data.importers.look import Refusal, box_numbers, checked, refusal
from fgclip_fast.data.importers.picture import Picture, View, turned_upright, view_of
from fgclip_fast.data.importers.source import SourceRecord
from fgclip_fast.data.records import parse
from fgclip_fast.data.shards import ShardWriter
from fgclip_fast.files.whole_file import write_json
from fgclip_fast.inputs.boxes import REASONS, BadBox, numbers


class Meaning(NamedTuple):
    """The meaning of the boxes of a source."""

    unit: BoxUnit | None
    """None: no box is usable."""
    view: View | None
    """The picture that boxes of turned images refer to, where their stated sizes do not tell."""


class Report(NamedTuple):
    """The counts of one shard."""

    records: int
    causes: Mapping[str, int]
    """Regions dropped and texts filled, by cause."""
    dropped: list[Refusal]


def write_shard(path: Path, records: Sequence[tuple[int, SourceRecord]], meaning: Meaning) -> Report:
    """Write a shard, and its report beside it, before it: a shard that exists has a report.

    The bytes depend on the records alone.

    Raises:
        ValueError: a record that was usable is no longer.
    """
    causes: Counter[str] = Counter()
    dropped: list[Refusal] = []
    with ShardWriter(path) as shard:
        for number, record in records:
            try:
                encoded, found = checked(record)
                fields = _fields(record, found, meaning)
            except BadRecord as bad:
                raise ValueError(
                    f"data import: {record.file}, {record.key}: changed during the import ({bad}); import again"
                ) from None
            defects = parse(fields).defects
            causes.update(defect.cause for defect in defects)
            dropped += [
                refusal(number, record, defect.cause, _in_numbers_of_source(defect, record), part="region")
                for defect in defects
                if defect.cause in DROPPED
            ]
            shard.write(f"{number:08d}", **{found.kind: encoded, "json": json.dumps(fields).encode()})
        report = Report(len(records), causes, dropped)
        write_json(report_of(path), report, indent=None)
    return report


def _in_numbers_of_source(defect: Defect, record: SourceRecord) -> str:
    """The detail of a region's defect; of a bad box with the numbers that the user will search for."""
    if defect.cause not in REASONS:
        return defect.detail
    return f"{defect.detail}; in the source {record.fields['bbox_info'][defect.region].get('bbox')!r:.80}"


def report_of(shard: Path) -> Path:
    """The file of a shard's report."""
    return shard.with_suffix(".json")


def read_report(shard: Path) -> Report:
    """Read the report of a shard that is complete."""
    records, causes, dropped = json.loads(report_of(shard).read_bytes())
    return Report(records, causes, [Refusal(*line) for line in dropped])


def _fields(record: SourceRecord, found: Picture, meaning: Meaning) -> dict[str, Any]:
    """The record's fields, with boxes as fractions of the upright picture, and the place that it came from."""
    fields = dict(record.fields)
    if box_numbers(fields):
        fields["bbox_info"] = [_region(entry, record, found, meaning) for entry in fields["bbox_info"]]
    return fields | {"source": {"key": record.key, "file": record.file, "line": record.line}}


def _region(entry: Any, record: SourceRecord, found: Picture, meaning: Meaning) -> Any:
    """Convert a region's box; if it is not four numbers, leave it to the checks of the record."""
    if not isinstance(entry, Mapping) or meaning.unit is None:
        return entry
    try:
        view = view_of(found, record.size) or meaning.view or "upright"
        box = as_fractions(numbers(entry.get("bbox")), meaning.unit, *(record.size or found.size(view)))
        return {**entry, "bbox": list(turned_upright(box, found.orientation if view == "stored" else 1))}
    except (BadBox, OverflowError):  # OverflowError: an integer beyond fp64
        return entry
