"""Runs a stage over shards so that a kill at any moment loses nothing.

A shard is written whole or not at all, and its outcome after it. A stage that asks a model keeps each answer
(:mod:`fgclip_fast.curate.answers`), so that a shard that is begun anew asks for nothing twice.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from fgclip_fast.curate.folder import DONE, OutputFolder, Row, digest, has_tables, read_json
from fgclip_fast.curate.results import Result, items, outcome, outcome_of
from fgclip_fast.curate.stage import AskingStage, Done, Item, Stage
from fgclip_fast.curate.units import Unit
from fgclip_fast.data.processes import cores, in_order
from fgclip_fast.data.records import part_name
from fgclip_fast.data.shards import ShardWriter
from fgclip_fast.progress import Progress
from fgclip_fast.whole_file import write_json

log = logging.getLogger(__name__)


def run(
    stage: Stage,
    units: Sequence[Unit],
    output: Path,
    *,
    workers: int | None = None,
    retry_failed: bool = False,
) -> Counter[str]:
    """Write a shard for each unit, and what became of each record beside it.

    Shards that an earlier call has finished are not written again, unless their source has changed. Equal input and
    settings give equal shards, whatever the number of workers.

    Args:
        stage: the stage.
        units: the input.
        output: a folder.
        workers: processes of a stage that computes; None: one for each core that this process may use.
        retry_failed: write the shards that lack failed records again; records that did not fail are not asked for.

    Returns:
        The counts of all shards.

    Raises:
        ValueError: the settings or the folder do not fit; the message says why.
        OSError: a file cannot be read or written, a server does not answer, or a worker was killed.
    """
    folder = OutputFolder(output, stage.name)
    folder.claim(units, stage.identity(), stage.settings(), stage.in_place)
    if not has_tables():
        log.warning("curate %s: no parquet of each record's status, which needs pyarrow; pip install"
                    " 'fgclip_fast[curate]'", stage.name)  # fmt: skip
    with folder.alone():
        if stage.looks:
            _look(stage, units, folder, workers)
        known = known_digest(folder)
        rest = [unit for unit in units if not folder.is_done(unit, known, retry_failed)]
        progress = Progress(len(units), len(units) - len(rest))
        try:
            if isinstance(stage, AskingStage):
                asyncio.run(write_asking(stage, rest, folder, retry_failed, _shown(progress, units, rest)))
            else:
                _write_computing(stage, rest, folder, known, workers, _shown(progress, units, rest))
        finally:
            progress.close()
    counts = folder.counts()
    write_json(output / f"{stage.name}.json", {"settings": folder.settings(), "counts": dict(sorted(counts.items()))})
    return counts


def known_digest(folder: OutputFolder) -> str:
    """Digest of what the first pass has found; empty if there was none."""
    known = read_json(folder.state / "known.json")
    return "" if known is None else digest(known)


def _shown(progress: Progress, units: Sequence[Unit], rest: Sequence[Unit]) -> Callable[[Counter[str]], None]:
    total = Counter(shards=len(units) - len(rest))

    def show(counts: Counter[str]) -> None:
        total.update({name: counts[name] for name in ("shards", "records", "records failed")})
        failed = f", {total['records failed']} failed" if total["records failed"] else ""
        progress.update(total["shards"], f"shards; {total['records']} records{failed}")

    return show


def _look(stage: Stage, units: Sequence[Unit], folder: OutputFolder, workers: int | None) -> None:
    """Make the first pass, over the shards that are new or changed since the last one."""
    known = folder.state / "known.json"
    if known.exists() and all(folder.holds(unit) for unit in units):
        return  # the input is being replaced
    looked = folder.state / "looked"
    looked.mkdir(exist_ok=True)
    missing = [unit for unit in units if (read_json(looked / f"{unit.name}.json") or [None])[0] != unit.state()]
    processes = max(1, min(workers or cores(), len(missing)))
    progress = Progress(len(units), len(units) - len(missing))
    try:
        tasks = ((stage, unit, looked / f"{unit.name}.json") for unit in missing)
        read = in_order(_look_at, tasks, processes, *_named(stage))
        for done, _ in enumerate(read, start=len(units) - len(missing) + 1):
            progress.update(done, "shards looked at")
    finally:
        progress.close()
    found = ((unit.name, read_json(looked / f"{unit.name}.json")[1]) for unit in units)
    write_json(known, stage.decide(found), indent=None)


def _look_at(stage: Stage, unit: Unit, path: Path) -> None:
    state = unit.state()
    write_json(path, [state, stage.look(unit.samples())], indent=None)


def _named(stage: Stage) -> tuple[str, str]:
    return f"curate {stage.name}", " the same command continues,"  # for the error of a worker that was killed


def _write_computing(
    stage: Stage,
    units: Sequence[Unit],
    folder: OutputFolder,
    known: str,
    workers: int | None,
    show: Callable[[Counter[str]], None],
) -> None:
    processes = max(1, min(workers or cores(), len(units)))
    tasks = ((stage, unit, folder, known, processes) for unit in units)
    for counts in in_order(write_unit, tasks, processes, *_named(stage)):
        show(counts)


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
    function = _function(stage, folder.state, known)
    source = unit.state()
    results = [outcome(function, item) for item in items(unit)]
    seconds = (time.perf_counter() - start) / processes
    return _finish(stage, unit, folder, source, known, results, seconds)


@lru_cache(maxsize=1)
def _function(stage: Stage, state: Path, known: str) -> Callable[[Item], Done]:
    return stage.function(read_json(state / "known.json") if known else None)


async def write_asking(
    stage: AskingStage,
    units: Sequence[Unit],
    folder: OutputFolder,
    again: bool,
    show: Callable[[Counter[str]], None] = lambda counts: None,
) -> None:
    """Write the shards of some units; the records of the next shard are begun while those of the last are under way."""
    slots, last = asyncio.Semaphore(stage.concurrency), time.perf_counter()

    async def finish(unit: Unit, source: Any, tasks: list[asyncio.Task[Result]]) -> None:
        nonlocal last
        results = await asyncio.gather(*tasks)
        now = time.perf_counter()
        _finish(stage, unit, folder, source, "", results, now - last)
        show(Counter(shards=1))
        last = now

    async with stage.session(folder.state, again) as function:

        async def one(item: Item | Result) -> Result:
            try:
                result = await outcome_of(function, item)
            finally:
                slots.release()
            show(Counter({"records": 1, f"records {result.row.status}": 1}))
            return result

        finishing: list[asyncio.Task[None]] = []
        try:
            for unit in units:
                source: Any = unit.state()
                tasks: list[asyncio.Task[Result]] = []
                for item in items(unit):
                    await slots.acquire()
                    _raise_first(tasks)
                    tasks.append(asyncio.create_task(one(item)))
                finishing.append(asyncio.create_task(finish(unit, source, tasks)))
                _raise_first(finishing)
            await asyncio.gather(*finishing)
        finally:
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)


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
    with ShardWriter(folder.path / unit.name) as target:
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
