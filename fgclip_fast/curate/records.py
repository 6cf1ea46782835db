"""Give the regions of one record negatives, and count what was done."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from fgclip_fast.curate.lexicon.rules import Rules
from fgclip_fast.curate.stage import Done, LeftRegion
from fgclip_fast.data.causes import BadRecord
from fgclip_fast.data.records import parse_json, part_name

NO_EXPRESSION = "no short_expr"
NOTHING_TO_CHANGE = "nothing to change"


def texts_of(parts: Mapping[str, bytes]) -> list[str]:
    """The short expressions of a sample's regions; none if its record cannot be read."""
    name = part_name(parts, ("json",))
    try:
        fields = parse_json(parts[name]) if name else {}
    except BadRecord:
        return []
    return [text for _, region in regions_of(fields) if (text := expression(region))]


def with_negatives(fields: dict[str, Any], key: str, rules: Rules, count: int, replace: bool) -> Done:
    """Write the negatives of a record's regions.

    Args:
        fields: the record; its regions are changed.
        key: of its sample; equal texts of other samples get other negatives.
        rules: writes the negatives.
        count: negatives of a region.
        replace: also of regions that have some.
    """
    counts: Counter[str] = Counter()
    without = []
    changed = False
    for i, region in regions_of(fields):
        counts["regions"] += 1
        if has_negatives(region) and not replace:
            counts["regions that kept their own"] += 1
            continue
        text = expression(region)
        negatives = rules.negatives(text, f"{key} {i}", count) if text else []
        if not negatives:
            without.append(LeftRegion(i, NOTHING_TO_CHANGE if text else NO_EXPRESSION, text))
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
    return Done(fields if changed else None, counts, tuple(without))


def has_negatives(region: Mapping[str, Any]) -> bool:
    """True if a region brings negatives that count."""
    return bool(region.get("short_expr_negs")) and region.get("flag_short_neg", 1) in (1, "1")


def regions_of(fields: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """The regions of a record that are objects, with their numbers."""
    entries = fields.get("bbox_info") if isinstance(fields, dict) else None
    for i, region in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(region, dict):
            yield i, region


def expression(region: Mapping[str, Any]) -> str:
    """The short expression of a region; empty if it has none."""
    text = region.get("short_expr")
    return text.strip() if isinstance(text, str) else ""
