"""Give the regions of one record negatives, and count what was done."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fgclip_fast.curate.rules import Rules
from fgclip_fast.data.causes import BadRecord
from fgclip_fast.data.records import parse_json, part_name

NO_EXPRESSION = "no short_expr"
NOTHING_TO_CHANGE = "nothing to change"


class Without(NamedTuple):
    """A region that got no negatives."""

    region: int
    text: str
    cause: str


class Outcome(NamedTuple):
    """The JSON of a record with negatives, its regions without, and counts for the report."""

    raw: bytes
    without: list[Without]
    counts: Counter[str]


def texts_of(parts: Mapping[str, bytes]) -> list[str]:
    """The short expressions of a sample's regions; none if its record cannot be read."""
    name = part_name(parts, ("json",))
    try:
        fields = parse_json(parts[name]) if name else {}
    except BadRecord:
        return []
    return [text for _, region in _regions(fields) if (text := _expression(region))]


def with_negatives(raw: bytes, key: str, rules: Rules, count: int, replace: bool) -> Outcome:
    """Write the negatives of a record's regions.

    Args:
        raw: its JSON.
        key: of its sample; equal texts of other samples get other negatives.
        rules: writes the negatives.
        count: negatives of a region.
        replace: also of regions that have some.
    """
    counts: Counter[str] = Counter(records=1)
    try:
        fields = parse_json(raw)
    except BadRecord as bad:
        return Outcome(raw, [], counts + Counter({f"bad record: {bad.cause}": 1}))
    without = []
    changed = False
    for i, region in _regions(fields):
        counts["regions"] += 1
        if region.get("short_expr_negs") and region.get("flag_short_neg", 1) in (1, "1") and not replace:
            counts["regions that kept their own"] += 1
            continue
        text = _expression(region)
        negatives = rules.negatives(text, f"{key} {i}", count) if text else []
        if not negatives:
            without.append(Without(i, text, NOTHING_TO_CHANGE if text else NO_EXPRESSION))
            counts[f"regions without: {without[-1].cause}"] += 1
            continue
        changed = True
        region["flag_short_neg"] = 1
        region["short_expr_negs"] = {str(n): negative.text for n, negative in enumerate(negatives)}
        counts["regions with new negatives"] += 1
        counts["regions with fewer than asked"] += len(negatives) < count
        counts["negatives"] += len(negatives)
        for negative in negatives:
            counts[f"changes {len(negative.kinds)}"] += 1
            counts.update(f"kind {kind}" for kind in set(negative.kinds))
    return Outcome(json.dumps(fields).encode() if changed else raw, without, counts)


def _regions(fields: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = fields.get("bbox_info") if isinstance(fields, dict) else None
    for i, region in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(region, dict):
            yield i, region


def _expression(region: Mapping[str, Any]) -> str:
    text = region.get("short_expr")
    return text.strip() if isinstance(text, str) else ""
