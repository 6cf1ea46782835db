"""Spreads the shards of a stage over a cluster by Ray Data: ``map_batches``, with a shard in each batch.

Images do not pass through Ray. A worker reads its shard and writes the new one into the output folder, which all
machines see. So a worker that is killed loses nothing: Ray gives its shard to another one.
"""

import asyncio
import json
import logging
import os
import pickle
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any

from fgclip_fast.config.rules import NotNegative, Positive, check
from fgclip_fast.curate.folder import OutputFolder
from fgclip_fast.curate.places.answers import Answers
from fgclip_fast.curate.stage import AskingStage, Done, Item, Stage
from fgclip_fast.curate.units import Unit
from fgclip_fast.curate.writing import look_at, write_asking, write_unit

_Work = Callable[[Unit], Counter[str]]
_ERRORS = {"ValueError": ValueError, "OSError": OSError}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Ray, which spreads the shards of a stage over machines that all see the source and the output folder."""

    workers: NotNegative[int] = 0
    """Processes on the cluster, at most; 0: no Ray, the processes of this machine alone."""
    cpus: Positive[float] = 1.0
    """Cores of each."""
    gpus: NotNegative[float] = 0.0
    """GPUs of each, for a detector or vLLM in the worker; 0.5: two share one."""
    address: str = ""
    """Of the cluster: auto, or HOST:PORT; empty: that of RAY_ADDRESS, else Ray is started on this machine."""

    def __post_init__(self) -> None:
        check(self, "curate: ray.")


HERE = Cluster()
"""No Ray: the processes of this machine."""


@dataclass
class Looking:
    """The first pass over a unit, on a worker."""

    stage: Stage
    folder: OutputFolder

    def __call__(self, unit: Unit) -> Counter[str]:
        """Look at a unit."""
        look_at(self.stage, unit, self.folder)
        return Counter()


@dataclass
class Computing:
    """Writes the shards of a stage that computes, on a worker."""

    stage: Stage
    folder: OutputFolder
    known: str
    workers: int

    def __call__(self, unit: Unit) -> Counter[str]:
        """Write the shard of a unit."""
        return write_unit(self.stage, unit, self.folder, self.known, self.workers)


class Asking:
    """Writes the shards of a stage that asks, on a worker, which keeps its session open.

    Args:
        stage: the stage.
        folder: the output.
        again: ask again where an answer was unusable.
        workers: of the whole run.
    """

    def __init__(self, stage: AskingStage, folder: OutputFolder, again: bool, workers: int) -> None:
        self._stage, self._folder, self._again, self._workers = stage, folder, again, workers
        # Made on the worker.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: AbstractAsyncContextManager[Callable[[Item], Awaitable[Done]]] | None = None
        self._function: Callable[[Item], Awaitable[Done]] | None = None
        self._answers: Answers | None = None

    def __call__(self, unit: Unit) -> Counter[str]:
        """Write the shard of a unit."""
        self._loop = self._loop or asyncio.new_event_loop()
        counts: Counter[str] = Counter()
        self._loop.run_until_complete(self._write(unit, counts))
        return counts

    async def _write(self, unit: Unit, counts: Counter[str]) -> None:
        if self._function is None or self._answers is None:
            self._answers = self._folder.answers(self._again, shared=True)
            self._session = self._stage.session(self._answers)
            self._function = await self._session.__aenter__()
        await write_asking(
            self._stage, [unit], self._folder, self._function, self._answers, counts.update, self._workers
        )


def _done(batch: dict[str, Any], work: _Work, home: str) -> dict[str, list[str]]:
    """What Ray Data calls: a batch of one unit, pickled, gives its counts, or its error in words."""
    (unit,) = batch["unit"]
    try:
        with suppress(FileNotFoundError):  # on a machine that shares no file system
            os.chdir(home)  # where relative paths start
        return {"error": [""], "detail": [json.dumps(work(pickle.loads(unit)))]}
    except (OSError, ValueError) as error:
        kind = "OSError" if isinstance(error, OSError) else "ValueError"
        return {"error": [kind], "detail": [str(error)]}


class _Worker:
    """The same, of work that keeps something from one unit to the next."""

    def __init__(self, work: _Work, home: str) -> None:
        self._work, self._home = work, home

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return _done(batch, self._work, self._home)


def on_cluster(work: _Work, units: Sequence[Unit], cluster: Cluster, who: str) -> Iterator[Counter[str]]:
    """Do some work for each unit on the cluster, and yield its counts, in the order in which units are done.

    Args:
        work: the work; each worker gets a copy. That of a stage that asks runs in actors, which stay until the end.
        units: the input.
        cluster: where to.
        who: names the stage in messages.

    Raises:
        ValueError: Ray is not installed, or the work has raised it.
        OSError: the cluster does not answer, or the work has raised it.
    """
    if not units:
        return
    data = _connected(cluster, who)
    rows = data.from_items([{"unit": pickle.dumps(unit)} for unit in units], override_num_blocks=len(units))
    home = os.getcwd()
    place = {"batch_size": 1, "num_cpus": cluster.cpus, "num_gpus": cluster.gpus}
    if isinstance(work, Asking):
        pool = data.ActorPoolStrategy(min_size=1, max_size=cluster.workers)
        done = rows.map_batches(_Worker, fn_constructor_args=(work, home), compute=pool, **place)
    else:
        tasks = data.TaskPoolStrategy(size=cluster.workers)
        done = rows.map_batches(_done, fn_args=(work, home), compute=tasks, **place)
    for row in done.iter_rows():
        if row["error"]:
            raise _ERRORS[row["error"]](row["detail"])
        yield Counter(json.loads(row["detail"]))


def _connected(cluster: Cluster, who: str) -> Any:
    """``ray.data``, with a connection to the cluster, which lasts as long as this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{who}: ray.workers needs Ray ({error.name} is missing); pip install 'fgclip_fast[ray]'"
        ) from None
    if not ray.is_initialized():
        # Without an address Ray would join any cluster that it finds on this machine.
        address = cluster.address or os.environ.get("RAY_ADDRESS") or "local"
        ours = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="WARNING")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise OSError(f"{who}: no Ray cluster at ray.address {cluster.address!r}: {error}") from None
        if signal.getsignal(signal.SIGTERM) != ours:  # Ray's would end the command with another status
            signal.signal(signal.SIGTERM, ours)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray.data
