"""Writes the shard of a unit: the function of a stage over all its records, then the shard, then its outcome."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar

from fgclip_fast.curate.folder import DONE, OutputFolder, Row
from fgclip_fast.curate.places.answers import SHARD, Answers
from fgclip_fast.curate.places.place import Place
from fgclip_fast.curate.results import Result, items, outcome, outcome_of
from fgclip_fast.curate.stage import AskingStage, Done, Item, Stage
from fgclip_fast.curate.units import Unit
from fgclip_fast.data.records import part_name
from fgclip_fast.data.shards import ShardWriter

KNOWN, LOOKED = "known.json", "looked"
"""What a first pass has found in all units, and the folder of what it finds in each."""

T = TypeVar("T")


def look_at(stage: Stage, unit: Unit, folder: OutputFolder) -> None:
    """Write what the first pass finds in a unit, behind the state of its source."""
    state = unit.state()
    folder.keep_json(f"{LOOKED}/{unit.name}.json", [state, stage.look(unit.samples())], indent=None)


def write_unit(stage: Stage, unit: Unit, folder: OutputFolder, known: str, processes: int = 1) -> Counter[str]:
    """Write the shard of one unit, and return its counts.

    Args:
        stage: one that computes.
        unit: the input.
        folder: the output.
        known: digest of what the first pass has found.
        processes: of the whole run, which share its time.
    """
    start = time.perf_counter()
    function = _function(stage, folder.place, folder.state, known)
    source = unit.state()
    results = [outcome(function, item) for item in items(unit)]
    seconds = (time.perf_counter() - start) / processes
    return _finish(stage, unit, folder, source, known, results, seconds)


@lru_cache(maxsize=1)
def _function(stage: Stage, place: Place, state: str, known: str) -> Callable[[Item], Done]:
    return stage.function(place.read_json(f"{state}/{KNOWN}") if known else None)


async def write_asking(
    stage: AskingStage,
    units: Sequence[Unit],
    folder: OutputFolder,
    function: Callable[[Item], Awaitable[Done]],
    answers: Answers,
    show: Callable[[Counter[str]], None] = lambda counts: None,
    processes: int = 1,
) -> None:
    """Write the shards of some units; the records of the next shard are begun while those of the last are under way.

    Args:
        stage: one that asks.
        units: the input.
        folder: the output.
        function: that of the stage's session.
        answers: those of the session.
        show: is told of each record and each shard.
        processes: of the whole run, which share its time.
    """
    slots, last = asyncio.Semaphore(stage.concurrency), time.perf_counter()
    running: set[asyncio.Task[Any]] = set()  # not all of the loop's: the session may have its own

    def begin(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        running.add(task)
        task.add_done_callback(running.discard)
        return task

    async def finish(unit: Unit, source: Any, tasks: list[asyncio.Task[Result]]) -> None:
        nonlocal last
        results = await asyncio.gather(*tasks)
        answers.end(unit.name)
        now = time.perf_counter()
        _finish(stage, unit, folder, source, "", results, (now - last) / processes)
        show(Counter(shards=1))
        last = now

    async def one(shard: str, item: Item | Result) -> Result:
        SHARD.set(shard)
        try:
            result = await outcome_of(function, item)
        finally:
            slots.release()
        show(Counter({"records": 1, f"records {result.row.status}": 1}))
        return result

    finishing: list[asyncio.Task[None]] = []
    try:
        for unit in units:
            answers.begin(unit.name)
            source: Any = unit.state()
            tasks: list[asyncio.Task[Result]] = []
            for item in items(unit):
                await slots.acquire()
                _raise_first(tasks)
                tasks.append(begin(one(unit.name, item)))
            finishing.append(begin(finish(unit, source, tasks)))
            _raise_first(finishing)
        await asyncio.gather(*finishing)
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            answers.save()
        raise
    finally:
        left = list(running)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _raise_first(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


def _finish(
    stage: Stage,
    unit: Unit,
    folder: OutputFolder,
    source: Any,
    known: str,
    results: Sequence[Result],
    seconds: float,
) -> Counter[str]:
    """Write a shard from its source, read again, and the results; then note that it is done."""
    counts = Counter({"shards": 1, "shards that end early": int(unit.damaged())})
    rows: list[Row] = []
    with folder.place.writing(unit.name) as path, ShardWriter(path) as target:
        for (key, parts), result in zip(unit.samples(), results, strict=True):
            counts += result.counts + Counter(records=1)
            counts.update(_left(result.row, stage))
            rows += [result.row, *result.regions]
            if result.row.status == DONE or stage.in_place:
                if result.raw is not None:
                    parts[part_name(parts, ("json",)) or "json"] = result.raw
                target.write(key.replace("/", "_"), **parts)
    folder.keep(unit, source, known, rows, counts, seconds)
    return counts


def _left(row: Row, stage: Stage) -> list[str]:
    """Names under which a record that is not done is counted."""
    if row.status == DONE:
        return []
    return (
        [f"bad record: {row.cause}"]
        if stage.in_place
        else [f"records {row.status}", f"records {row.status}: {row.cause}"]
    )
