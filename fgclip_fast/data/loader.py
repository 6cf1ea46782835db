"""Batches for training, forever and from any step on; examples for evaluation, once and in order."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Sampler

from fgclip_fast import config
from fgclip_fast.data.dali import Dali, available
from fgclip_fast.data.draw import plain
from fgclip_fast.data.index import extent, index
from fgclip_fast.data.order import Order, Place
from fgclip_fast.data.records import Record
from fgclip_fast.data.samples import Parcel, Samples, Tally, Visit, read_good
from fgclip_fast.data.shards import Shards, expand
from fgclip_fast.data.transport import Packed, unpack
from fgclip_fast.data.workers import check_shared_memory, data_loader
from fgclip_fast.inputs.batch import Batch, Example, Tokenize

_PATIENCE = 5  # seconds

log = logging.getLogger(__name__)


class Loader:
    """The training set of one process.

    The batches are a function of the set, ``data``, ``seed`` and the global batch; neither the number of workers nor
    a restart changes a bit of them, and the samples of a global batch are the same for any ``world_size``.

    Args:
        data: which shards, and what is drawn from each record.
        image_size: side S of the square images, pixels.
        batch_size: images of this process a step.
        seed: of order and draws.
        tokenizer: texts -> flat tokens and offsets; is sent to each worker.
        rank, world_size: this process among those that share the set.
        micro_batch_size: images of a micro-batch; None: a batch is handed out whole.
        packing: how the texts of a micro-batch are laid out for the text tower.
        pin_memory: hand out batches in page-locked memory.

    Raises:
        ValueError: fewer samples than one global batch; a world size that does not divide ``data.lanes``; too little
            shared memory for the workers.
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
        packing: config.Packing = "none",
        pin_memory: bool = False,
    ) -> None:
        self.decoder = _decoder(data.decoder)
        """"cpu" or "dali"; their pixels differ a little, so a run that goes on should keep to one."""
        paths = expand(data.train)
        self.counts: Counter[str] = Counter()
        """How often each cause came in the batches so far: samples replaced, regions dropped, texts filled."""
        order = Order(
            _samples(paths, self.counts), seed=seed, lanes=data.lanes, window=data.window, world_size=world_size
        )
        self.steps_per_epoch = order.samples // (batch_size * world_size)
        """Global batches in an epoch; the last incomplete one is dropped."""
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"data: {data.train} holds {order.samples} samples, fewer than one global batch of {batch_size} x "
                f"{world_size}; pass a smaller --batch-size"
            )
        if data.workers:
            check_shared_memory(data.workers, batch_size * 3 * image_size**2)
        samples = Samples(
            Shards(paths),
            order,
            data,
            image_size=image_size,
            seed=seed,
            tokenizer=tokenizer,
            packing=packing,
            micro_batch_size=micro_batch_size,
            encoded=self.decoder == "dali",
        )
        self._samples, self._image_size, self._batch_size = samples, image_size, batch_size
        self._steps = _Steps(order, batch_size * world_size, rank, self.steps_per_epoch)
        self._parcels = data_loader(samples, self._steps, data.workers, pin_memory)

    def batches(self, after: int = 0) -> Iterator[list[Batch]]:
        """The batches that follow step ``after``, over all epochs, each as its micro-batches, or as one.

        Workers start at this call, not at the first batch.
        """
        self._steps.after = after
        arriving = iter(self._parcels)  # first the workers, then DALI's threads
        parcels: Iterator[Parcel] = (unpack(x) if isinstance(x, Packed) else x for x in arriving)
        if self.decoder == "dali":
            device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
            parcels = Dali(self._image_size, self._batch_size, device).fill(parcels, self._samples.decoded)
        return self._handed_out(parcels)

    def _handed_out(self, parcels: Iterator[Parcel]) -> Iterator[list[Batch]]:
        for parcel in parcels:
            _report(parcel.tally, self.counts)
            yield parcel.micro_batches


def examples(
    pattern: str,
    *,
    image_size: int,
    data: config.Data | None = None,
    limit: int | None = None,
    counts: Counter[str] | None = None,
) -> Iterator[Example]:
    """Every good record of some shards once, in file order, with nothing drawn.

    Regions have their short expression as text, and boxes as given.

    Args:
        pattern: shards, as :func:`~fgclip_fast.data.shards.expand` takes them.
        image_size: side S of the square images.
        data: gives the prefix of short captions and how many regions and negatives are taken, the first in file order.
        limit: at most so many examples.
        counts: gains how often each cause came.
    """
    data = data or config.Data()
    found = _good_records(expand(pattern), image_size, Counter() if counts is None else counts)
    return (plain(*good, data) for good in islice(found, limit))


def _good_records(paths: list[Path], image_size: int, counts: Counter[str]) -> Iterator[tuple[Record, Tensor]]:
    shards = Shards(paths)
    for shard, path in enumerate(paths):
        places, damaged_at = index(path)  # no extent: what img2dataset has counted says nothing of damage
        _report_damage(path, damaged_at, len(places), counts)
        if len(places) == 0:
            log.warning("%s: holds no sample", path)
        for i in range(len(places)):
            tally = Tally()
            good = read_good(shards, Place(shard, i), image_size, tally)
            _report(tally, counts)
            if good is not None:
                yield good


def _samples(paths: list[Path], counts: Counter[str]) -> list[int]:
    """How many each shard has; ``counts`` gains the damaged ones."""
    began, told, samples = time.monotonic(), False, []
    for path in paths:
        found = extent(path)
        samples.append(found.samples)
        _report_damage(path, found.damaged_at, found.samples, counts)
        if not told and time.monotonic() - began > _PATIENCE:
            log.info("data: listing %d shards, once; `python -m fgclip_fast.data index` does so beforehand", len(paths))
            told = True
    return samples


def _report_damage(shard: Path, at: int, samples: int, counts: Counter[str]) -> None:
    if at >= 0:
        tally = Tally()
        tally.damaged(shard, at, samples)
        _report(tally, counts)


def _report(tally: Tally, counts: Counter[str]) -> None:
    counts.update(tally.counts)
    for level, line in tally.lines:
        log.log(level, line)


class _Steps(Sampler):
    """Batch sampler: this rank's visits of each global batch, from step ``after`` on, without end."""

    def __init__(self, order: Order, global_batch: int, rank: int, steps_per_epoch: int) -> None:
        self._order, self._global_batch, self._rank = order, global_batch, rank
        self._steps_per_epoch = steps_per_epoch
        self.after = 0

    def __iter__(self) -> Iterator[list[Visit]]:
        step = self.after
        while True:
            epoch, done = divmod(step, self._steps_per_epoch)
            positions = self._order.positions(done * self._global_batch, self._global_batch, self._rank)
            yield [Visit(epoch, position) for position in positions]
            step += 1


def _decoder(wanted: config.Decoder) -> str:
    if wanted == "dali" and not available():
        raise ValueError("data: data.decoder dali needs DALI: pip install 'fgclip_fast[dali]', or pass cpu")
    if wanted == "auto":
        return "dali" if torch.cuda.is_available() and available() else "cpu"
    return wanted
