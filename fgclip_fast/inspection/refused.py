"""The records that an import refused before there were shards, by the list that it left beside them."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fgclip_fast.data.importers.work_folder import REFUSED_FILE

_NAMED = 5  # records of one cause


def refused(shards: Sequence[Path]) -> dict[str, tuple[int, list[str]]]:
    """Read the lists beside some shards.

    Returns:
        cause → number of records, and the first of them as *key (file, line)*; the most frequent cause first.
    """
    counts: Counter[str] = Counter()
    named: dict[str, list[str]] = {}
    for file in sorted({shard.parent / REFUSED_FILE for shard in shards}):
        if not file.is_file():
            continue
        with file.open(newline="", encoding="utf-8", errors="replace") as lines:
            for row in csv.DictReader(lines):
                if row.get("part") == "record" and row.get("cause"):
                    counts[row["cause"]] += 1
                    if counts[row["cause"]] <= _NAMED:
                        place = f"{row.get('file')}, line {row.get('line')}"
                        named.setdefault(row["cause"], []).append(f"{row.get('key')} ({place})")
    return {cause: (count, named[cause]) for cause, count in counts.most_common()}
