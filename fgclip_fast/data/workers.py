"""The processes that make batches: how they start, what they share, and that they end with the training process."""

import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from fgclip_fast.data.samples import Samples

_PREFETCH = 2  # batches that a worker makes ahead
_SHARED_MEMORY = Path("/dev/shm")


def data_loader(samples: Samples, steps: Sampler, workers: int, pin_memory: bool) -> DataLoader:
    """torch's DataLoader over batches that ``samples`` makes itself; without workers it makes them here."""
    context = None
    if workers:
        context = multiprocessing.get_context("forkserver")  # a fork of this process would copy its threads' locks
        context.set_forkserver_preload(["fgclip_fast.data.samples"])
    return DataLoader(
        samples,
        batch_sampler=steps,
        collate_fn=_as_it_is,
        num_workers=workers,
        multiprocessing_context=context,
        persistent_workers=workers > 0,
        prefetch_factor=_PREFETCH if workers else None,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # DataLoader draws a seed at each start: not from the generator of the model
    )


def check_shared_memory(workers: int, batch_bytes: int) -> None:
    """Batches travel in shared memory; too little of it would end a worker with a bus error in mid-run.

    Raises:
        ValueError: less is free than the batches under way will take.
    """
    if not _SHARED_MEMORY.is_dir():
        return
    state = os.statvfs(_SHARED_MEMORY)
    free, needed = state.f_bavail * state.f_frsize, (workers * _PREFETCH + 1) * batch_bytes
    if free < needed:
        raise ValueError(
            f"data: {workers} workers need {needed / 2**20:.0f} MiB of shared memory, {_SHARED_MEMORY} has "
            f"{free / 2**20:.0f} free; in a container raise --shm-size, or pass fewer --data.workers"
        )


def _as_it_is(parcel: Any) -> Any:
    return parcel  # the data set has made a batch already


def _start_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training process, which ends its workers
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_the_training_process, daemon=True).start()


def _end_with_the_training_process() -> None:
    """A killed process leaves the fork server alive, which is what DataLoader's own watchdog looks at."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
