"""Runs a stage over shards so that a kill at any moment loses nothing.

A shard is written whole or not at all, and its outcome after it. A stage that asks a model keeps each answer
(:mod:`fgclip_fast.curate.places.answers`), so that a shard that is begun anew asks for nothing twice.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

from fgclip_fast.curate.cluster import HERE, Asking, Cluster, Computing, Looking, on_cluster
from fgclip_fast.curate.folder import OutputFolder, digest, has_tables
from fgclip_fast.curate.places.place import Place
from fgclip_fast.curate.stage import AskingStage, Stage
from fgclip_fast.curate.units import Unit
from fgclip_fast.curate.writing import KNOWN, LOOKED, look_at, write_asking, write_unit
from fgclip_fast.data.processes import cores, in_order
from fgclip_fast.process.progress import Progress

log = logging.getLogger(__name__)


def run(
    stage: Stage,
    units: Sequence[Unit],
    output: Path | str | Place,
    *,
    workers: int | None = None,
    retry_failed: bool = False,
    cluster: Cluster = HERE,
) -> Counter[str]:
    """Write a shard for each unit, and what became of each record beside it.

    Shards that an earlier call has finished are not written again, unless their source has changed. Equal input and
    settings give equal shards, whatever the number of workers.

    Args:
        stage: the stage.
        units: the input.
        output: a folder, or a URL of one in object storage.
        workers: processes of a stage that computes; None: one for each core that this process may use.
        retry_failed: write the shards that lack failed records again; records that did not fail are not asked for.
        cluster: Ray, if it has workers, in the place of the processes of this machine.

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
            _look(stage, units, folder, workers, cluster)
        known = known_digest(folder)
        rest = folder.rest(units, known, retry_failed)
        progress = Progress(len(units), len(units) - len(rest))
        try:
            show = _shown(progress, units, rest)
            if cluster.workers:
                _write_on_cluster(stage, rest, folder, known, retry_failed, cluster, show)
            elif isinstance(stage, AskingStage):
                asyncio.run(_write_here(stage, rest, folder, retry_failed, show))
            else:
                _write_computing(stage, rest, folder, known, workers, show)
        finally:
            progress.close()
    counts = folder.counts()
    about = {"settings": folder.settings(), "counts": dict(sorted(counts.items()))}
    folder.place.write_json(f"{stage.name}.json", about)
    return counts


def known_digest(folder: OutputFolder) -> str:
    """Digest of what the first pass has found; empty if there was none."""
    known = folder.kept(KNOWN)
    return "" if known is None else digest(known)


def _shown(progress: Progress, units: Sequence[Unit], rest: Sequence[Unit]) -> Callable[[Counter[str]], None]:
    total = Counter(shards=len(units) - len(rest))

    def show(counts: Counter[str]) -> None:
        total.update({name: counts[name] for name in ("shards", "records", "records failed")})
        failed = f", {total['records failed']} failed" if total["records failed"] else ""
        progress.update(total["shards"], f"shards; {total['records']} records{failed}")

    return show


def _look(stage: Stage, units: Sequence[Unit], folder: OutputFolder, workers: int | None, cluster: Cluster) -> None:
    """Make the first pass, over the shards that are new or changed since the last one."""
    if folder.kept(KNOWN) is not None and all(folder.holds(unit) for unit in units):
        return  # the input is being replaced
    folder.place.make(f"{folder.state}/{LOOKED}")
    files = [f"{LOOKED}/{unit.name}.json" for unit in units]
    before = zip(units, folder.all_kept(files), strict=True)
    missing = [unit for unit, found in before if (found or [None])[0] != unit.state()]
    processes = max(1, min(workers or cores(), len(missing)))
    progress = Progress(len(units), len(units) - len(missing))
    try:
        tasks = ((stage, unit, folder) for unit in missing)
        read: Iterable[object] = in_order(look_at, tasks, processes, *_named(stage))
        if cluster.workers:
            read = on_cluster(Looking(stage, folder), missing, cluster, f"curate {stage.name}")
        for done, _ in enumerate(read, start=len(units) - len(missing) + 1):
            progress.update(done, "shards looked at")
    finally:
        progress.close()
    looked = ((unit.name, found[1]) for unit, found in zip(units, folder.all_kept(files), strict=True))
    folder.keep_json(KNOWN, stage.decide(looked), indent=None)


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


async def _write_here(
    stage: AskingStage,
    units: Sequence[Unit],
    folder: OutputFolder,
    again: bool,
    show: Callable[[Counter[str]], None],
) -> None:
    with closing(folder.answers(again)) as answers:
        async with stage.session(answers) as function:
            await write_asking(stage, units, folder, function, answers, show)


def _write_on_cluster(
    stage: Stage,
    units: Sequence[Unit],
    folder: OutputFolder,
    known: str,
    again: bool,
    cluster: Cluster,
    show: Callable[[Counter[str]], None],
) -> None:
    work: Asking | Computing = Computing(stage, folder, known, cluster.workers)
    if isinstance(stage, AskingStage):
        work = Asking(stage, folder, again, cluster.workers)
        folder.answers(False, shared=True).close()  # one alone must change how the file is written
    for counts in on_cluster(work, units, cluster, f"curate {stage.name}"):
        show(counts)
