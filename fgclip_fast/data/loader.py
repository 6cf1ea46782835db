"""Batches for training, endless and from any step on."""

import logging
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from fgclip_fast import config
from fgclip_fast.config.model import Packing
from fgclip_fast.data.copies import warn_of_little_room
from fgclip_fast.data.dali import Dali, available
from fgclip_fast.data.file_order import examples as examples  # programs of earlier versions take it from here
from fgclip_fast.data.index import extents
from fgclip_fast.data.mixture import MixedOrder, Source
from fgclip_fast.data.order import Order
from fgclip_fast.data.processes import main_left_out
from fgclip_fast.data.remote import RemoteError
from fgclip_fast.data.samples import DefectCounts, Recipe, Samples, Visit, WorkerBatch
from fgclip_fast.data.shards import Shards, expand, weighted
from fgclip_fast.data.transport import SharedTensors, unpack
from fgclip_fast.data.workers import PREFETCH, check_shared_memory, data_loader, starting_anew, warn_of_few_cores
from fgclip_fast.inputs.batch import Batch, Tokenize

_PATIENCE = 5  # seconds of listing shards before the log tells of it

log = logging.getLogger(__name__)


class Loader:
    """The training set of one process.

    The batches are a function of the set, ``data``, ``seed`` and the global batch size; neither the number of workers
    nor a restart changes a bit of them, and the samples of a global batch are the same for any ``world_size``.

    Args:
        data: the shards, and what is taken from each record.
        image_size: side S of the square images, pixels.
        batch_size: images of this process a step.
        seed: seed of order and augmentation.
        tokenizer: texts -> flat tokens and offsets; pickled for each worker.
        rank, world_size: number of this process, and of all processes that share the set.
        micro_batch_size: images of a micro-batch; None: the whole batch is one.
        packing: layout of a micro-batch's texts for the text tower.
        device: the model's device. For a GPU, batches come in page-locked memory, and DALI decodes on it.
        shards: the files that ``data.train`` names, if the caller has listed them already.

    Raises:
        ValueError: fewer samples than one global batch; a world size that does not divide ``data.lanes``; too little
            shared memory for the workers; ``data.decoder`` is "dali", which is not installed.
        FileNotFoundError: ``data.train`` names no shard.
    """

    def __init__(
        self,
        data: config.Data,
        *,
        image_size: int,
        batch_size: int,
        seed: int,
        tokenizer: Tokenize,
        rank: int = 0,
        world_size: int = 1,
        micro_batch_size: int | None = None,
        packing: Packing = "none",
        device: torch.device | str = "cpu",
        shards: Sequence[Path] | None = None,
    ) -> None:
        self._device, global_batch = torch.device(device), batch_size * world_size
        self.decoder = _decoder(data, self._device)
        """"cpu" or "dali"; their pixels differ a little, so a resumed run should keep to one."""
        self.shards = list(shards or expand(data.train))
        """The tar files of the set."""
        warn_of_little_room(self.shards, data.lanes // world_size * data.window)
        sources = _sources(data.train, self.shards)
        self.counts: Counter[str] = Counter()
        """Number of samples replaced, regions left out and texts filled or cut in the batches so far, by cause."""
        samples = _samples(self.shards, self.counts)
        settings = {"seed": seed, "lanes": data.lanes, "window": data.window, "world_size": world_size}
        order = MixedOrder(samples, sources, **settings) if sources else Order(samples, **settings)
        self.steps_per_epoch = order.samples // global_batch
        """Global batches in an epoch; the last incomplete one is dropped."""
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"data: {data.train} holds {order.samples} samples, fewer than one global batch of {batch_size} x "
                f"{world_size}; pass a smaller --batch-size"
            )
        if data.workers:
            check_shared_memory(data.workers, batch_size * 3 * image_size**2)
            warn_of_few_cores(data.workers)
        recipe = Recipe(data, image_size, seed, tokenizer, packing, micro_batch_size, encoded=self.decoder == "dali")
        self._image_size, self._batch_size, self._workers = image_size, batch_size, data.workers
        self._counted_to = 0
        self._samples = Samples(Shards(self.shards), order, recipe)
        self._steps = _Steps(order, global_batch, rank, self.steps_per_epoch)
        self._worker_batches = self._data_loader()

    @property
    def queued(self) -> int:
        """Batches that the workers make ahead, at most; 0 without workers."""
        return self._workers * PREFETCH

    def set_micro_batch_size(self, images: int | None) -> None:
        """Have the next :meth:`batches` come in micro-batches of another size, with the same samples.

        Close those that were asked for before, which keep their workers until then.

        Args:
            images: images of a micro-batch; None: the whole batch is one.
        """
        self._samples = self._samples.in_micro_batches(images)
        self._worker_batches = self._data_loader()

    def batches(self, after: int = 0) -> Generator[list[Batch], None, None]:
        """Return the batches that follow step ``after``, over all epochs, each as a list of its micro-batches.

        Workers start at this call, not at the first batch. What was left out of a step is counted once, however often
        its batch is asked for.
        """
        first = self._started(after)  # before DALI starts its threads
        arriving = starting_anew(first, self._started_anew, after, self._samples.names_at_hand)
        batches: Iterator[WorkerBatch] = (unpack(x) if isinstance(x, SharedTensors) else x for x in arriving)
        if self.decoder == "dali":
            dali = Dali(self._image_size, self._batch_size, self._device)
            batches = dali.fill(batches, on_cpu=self._samples.decoded)
        return self._counted(batches, after)

    def names(self, step: int) -> list[str]:
        """Name the samples of this process in a step, counted from 1; one that was replaced by its first choice."""
        return self._samples.names(self._steps.visits(step - 1))

    def _started(self, after: int) -> Iterator[Any]:
        """What the workers make after a step."""
        self._steps.after = after
        with main_left_out():
            return iter(self._worker_batches)

    def _started_anew(self, after: int) -> Iterator[Any]:
        """The same by new workers."""
        self._worker_batches = self._data_loader()
        return self._started(after)

    def _data_loader(self) -> DataLoader:
        return data_loader(self._samples, self._steps, self._workers, self._device.type == "cuda")

    def _counted(self, batches: Iterator[WorkerBatch], after: int) -> Generator[list[Batch], None, None]:
        try:
            for step, batch in enumerate(batches, start=after + 1):
                if step > self._counted_to:
                    batch.defects.report(self.counts)
                    self._counted_to = step
                yield batch.micro_batches
        except RemoteError as error:  # of a worker its traceback, which ends with the sentence
            raise RemoteError(str(error).rpartition("RemoteError: ")[2]) from None


def _sources(pattern: str, shards: list[Path]) -> list[Source]:
    """The sets of a pattern with weights; empty if it gives none, and then nothing is searched again."""
    if "@" not in pattern:
        return []
    at = {path: number for number, path in enumerate(shards)}
    return [Source(weight, [at[path] for path in paths]) for weight, paths in weighted(pattern)]


def _samples(paths: list[Path], counts: Counter[str]) -> list[int]:
    """Number of samples of each shard; ``counts`` gains the damaged shards."""
    began, noted, samples = time.monotonic(), False, []
    for path, found in zip(paths, extents(paths), strict=True):
        samples.append(found.samples)
        _report_damage(path, found.damaged_at, found.samples, counts)
        if not noted and time.monotonic() - began > _PATIENCE:
            log.info("data: listing %d shards, once; `fgclip data index` does so beforehand", len(paths))
            noted = True
    return samples


def _report_damage(shard: Path, at: int, samples: int, counts: Counter[str]) -> None:
    if at >= 0:
        defects = DefectCounts()
        defects.add_damaged_shard(shard, at, samples)
        defects.report(counts)


class _Steps(Sampler):
    """Batch sampler: the visits of this rank in each global batch, from step ``after`` on, without end."""

    def __init__(self, order: Order, global_batch: int, rank: int, steps_per_epoch: int) -> None:
        self._order, self._global_batch, self._rank = order, global_batch, rank
        self._steps_per_epoch = steps_per_epoch
        self.after = 0

    def __iter__(self) -> Iterator[list[Visit]]:
        step = self.after
        while True:
            yield self.visits(step)
            step += 1

    def visits(self, step: int) -> list[Visit]:
        """The visits of this rank after ``step`` steps."""
        epoch, done = divmod(step, self._steps_per_epoch)
        positions = self._order.positions(done * self._global_batch, self._global_batch, self._rank)
        return [Visit(epoch, position) for position in positions]


def _decoder(data: config.Data, device: torch.device) -> str:
    wanted = data.decoder
    if wanted == "dali" and not available():
        raise ValueError("data: data.decoder dali needs DALI: pip install 'fgclip_fast[dali]', or pass cpu")
    if wanted == "auto":
        return "dali" if device.type == "cuda" and available() and not data.draws_views else "cpu"
    return wanted
