"""What became of each record of a shard."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

from fgclip_fast.curate.folder import DONE, DROPPED, FAILED, Row
from fgclip_fast.curate.stage import Done, Item, LeftOut
from fgclip_fast.curate.units import Unit
from fgclip_fast.data.causes import WRONG_TYPE, BadRecord
from fgclip_fast.data.records import parse_json, part_name


class Result(NamedTuple):
    """What became of a record: its row, its JSON (None: as it came), rows of its regions, counts."""

    row: Row
    raw: bytes | None
    regions: tuple[Row, ...]
    counts: Counter[str]


def items(unit: Unit) -> Iterator["Item | Result"]:
    """The records of a unit; of one whose JSON is broken, what became of it."""
    for number, (key, parts) in enumerate(unit.samples()):
        name = part_name(parts, ("json",))
        try:
            fields = parse_json(parts[name]) if name else {}
            if not isinstance(fields, dict):
                raise BadRecord(WRONG_TYPE, f"a record must be an object, got {type(fields).__name__}")
            yield Item(key, fields, parts, unit.name, number)
        except BadRecord as bad:
            yield Result(Row(key, None, DROPPED, bad.cause, bad.detail[:300]), None, (), Counter())


def outcome(function: Callable[[Item], Done], item: Item | Result) -> Result:
    """What becomes of a record by the function of a stage."""
    if isinstance(item, Result):
        return item
    try:
        return _done(item, function(item))
    except LeftOut as left:
        return _left(item, left)


async def outcome_of(function: Callable[[Item], Awaitable[Done]], item: Item | Result) -> Result:
    """The same by a function that waits for a model."""
    if isinstance(item, Result):
        return item
    try:
        return _done(item, await function(item))
    except LeftOut as left:
        return _left(item, left)


def _done(item: Item, done: Done) -> Result:
    rows = tuple(
        Row(item.key, left.region, FAILED if left.again else DROPPED, left.cause, left.detail[:300])
        for left in done.left_out
    )
    raw = None if done.fields is None else json.dumps(done.fields).encode()
    return Result(Row(item.key, None, DONE), raw, rows, done.counts)


def _left(item: Item, left: LeftOut) -> Result:
    return Result(Row(item.key, None, left.status, left.cause, left.detail), None, (), left.counts)
