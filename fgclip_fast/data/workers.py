"""The processes that make batches: their start, the memory that they share, and their end with the training process."""

import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Sampler

from fgclip_fast.data.processes import cores, end_with_parent, ignore_signals, start_fork_server
from fgclip_fast.data.samples import Samples

log = logging.getLogger(__name__)
Made = TypeVar("Made")
PREFETCH = 2
"""Batches that a worker makes ahead."""
DEATHS = 3
"""Deaths of workers, within a thousand batches, after each of which they are started anew."""
_FORGIVEN = 1000
_SHARED_MEMORY = Path("/dev/shm")


def data_loader(samples: Samples, steps: Sampler, workers: int, pin_memory: bool) -> DataLoader:
    """Make torch's DataLoader over the batches of ``samples``; with 0 workers they are made in this process."""
    context = None
    if workers:
        context = multiprocessing.get_context("forkserver")  # a fork of this process would copy its threads' locks
        context.set_forkserver_preload(["fgclip_fast.data.samples"])
        start_fork_server()
        samples.at_hand = context.RawArray("q", [-1] * (2 * workers))
    return DataLoader(
        samples,
        batch_sampler=steps,
        collate_fn=_unchanged,
        num_workers=workers,
        multiprocessing_context=context,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCH if workers else None,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        # DataLoader takes a seed from this generator at each start; by default from the one that the model uses.
        generator=torch.Generator(),
    )


def starting_anew(
    batches: Iterator[Made], start: Callable[[int], Iterator[Made]], step: int, at_hand: Callable[[], str]
) -> Generator[Made, None, None]:
    """Return batches; where a worker dies, all start anew and make the same batches.

    Args:
        batches: those after ``step``.
        start: step -> the batches after it, by new workers.
        step: steps done.
        at_hand: names the samples that the workers were at.

    Raises:
        OSError: a worker died for the fourth time within a thousand batches.
    """
    deaths: list[int] = []
    while True:
        try:
            for batch in batches:
                step += 1
                yield batch
            return
        except (RuntimeError, ConnectionError, EOFError) as error:
            if not _tells_of_a_death(error):
                raise
            deaths = [*(before for before in deaths if step - before < _FORGIVEN), step]
            said = " ".join(str(error).split()) or type(error).__name__
            told = f"data: a worker died ({said}), {at_hand()}"
            if len(deaths) > DEATHS:
                raise OSError(f"{told}; it was started anew {DEATHS} times") from None
        log.warning("%s; the workers start anew after step %d, with the same samples", told, step)
        batches = start(step)


def _tells_of_a_death(error: Exception) -> bool:
    """True for torch's word of a dead worker, and for a batch whose memory the worker can no longer hand over."""
    if isinstance(error, RuntimeError):
        return "exited unexpectedly" in str(error)
    return not str(error).startswith("Caught ")  # else a worker that lives has raised it


def warn_of_few_cores(workers: int) -> None:
    """Warn of more workers than cores, which take turns with each other and with the model."""
    if workers > cores():
        log.warning(
            "data: %d workers on %d cores; pass --data.workers %d, and, where the model is on the CPU too, --threads"
            " for the rest", workers, cores(), max(1, cores() - 1)
        )  # fmt: skip
    # In place of torch's own warning, which is given at each start and names no setting.
    warnings.filterwarnings("ignore", "This DataLoader will create .* worker processes", UserWarning)


def check_shared_memory(workers: int, batch_bytes: int) -> None:
    """Refuse to start with too little shared memory for the batches, which would end a worker with a bus error later.

    Raises:
        ValueError: less is free than the batches on their way will take.
    """
    if not _SHARED_MEMORY.is_dir():
        return
    state = os.statvfs(_SHARED_MEMORY)
    free, needed = state.f_bavail * state.f_frsize, (workers * PREFETCH + 1) * batch_bytes
    if free < needed:
        raise ValueError(
            f"data: {workers} workers need {needed / 2**20:.0f} MiB of shared memory, {_SHARED_MEMORY} has "
            f"{free / 2**20:.0f} free; in a container raise --shm-size, or pass fewer --data.workers"
        )


def _unchanged(batch: Any) -> Any:
    return batch  # samples have made a batch of the visits already


def _start_worker(worker: int) -> None:
    ignore_signals()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    end_with_parent()  # DataLoader's own watchdog looks at the fork server only
