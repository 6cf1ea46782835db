"""From positions of an epoch to a batch: read, check, decode, draw, and a good sample for each bad one.

A map-style data set whose item is a whole batch; it runs in the loader's workers, or in the training process.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from fgclip_fast import config
from fgclip_fast.data.causes import DROPPED, BadRecord
from fgclip_fast.data.decode import decode
from fgclip_fast.data.draw import draw
from fgclip_fast.data.order import Order, Place
from fgclip_fast.data.records import Record, parse_sample
from fgclip_fast.data.shards import Shards
from fgclip_fast.inputs.batch import Batch, Example, Tokenize, make_batch

ATTEMPTS = 100
"""So many samples are tried for one position before the set is called unusable."""


class Visit(NamedTuple):
    """A position of an epoch, counted from 0."""

    epoch: int
    position: int


class Tally:
    """What was replaced, dropped and filled: how often by cause, and a log line (level, text) for what was lost."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lines: list[tuple[int, str]] = []

    def bad(self, name: str, bad: BadRecord) -> None:
        """A sample that cannot be used."""
        self.counts[bad.cause] += 1
        self.lines.append((logging.WARNING, f"{name}: {bad}; left out"))

    def defects(self, name: str, record: Record) -> None:
        """What a good record lacks."""
        self.counts.update(defect.cause for defect in record.defects)
        for defect in record.defects:
            if defect.cause in DROPPED:
                self.lines.append((logging.INFO, f"{name}: {defect.cause}: {defect.detail}; dropped"))


class Parcel(NamedTuple):
    """What a worker hands over: a batch in its micro-batches, and what had to be done for it."""

    micro_batches: list[Batch]
    tally: Tally


class Samples(Dataset):
    """The training set; ``samples.__getitems__(visits)`` is the batch of these visits.

    Args:
        shards: the tar files.
        order: which sample stands where.
        data: what is drawn.
        image_size: side S of the square images.
        seed: of the draws.
        tokenizer: texts -> tokens; sent to each worker.
        packing: of each micro-batch's texts.
        micro_batch_size: images of a micro-batch; None: the whole batch is one.
    """

    def __init__(
        self,
        shards: Shards,
        order: Order,
        data: config.Data,
        *,
        image_size: int,
        seed: int,
        tokenizer: Tokenize,
        packing: config.Packing = "none",
        micro_batch_size: int | None = None,
    ) -> None:
        self._shards = shards
        self._order = order
        self._data = data
        self._image_size = image_size
        self._seed = seed % 2**63  # numpy refuses a negative one
        self._tokenizer = tokenizer
        self._packing: config.Packing = packing
        self._micro_batch_size = micro_batch_size

    def __getitems__(self, visits: Sequence[Visit]) -> Parcel:
        """The batch of some visits; DataLoader calls this with what the batch sampler gives."""
        tally = Tally()
        examples = [self._example(visit, tally) for visit in visits]
        step = self._micro_batch_size or len(examples)
        parts = [examples[first : first + step] for first in range(0, len(examples), step)]
        return Parcel([make_batch(part, self._tokenizer, self._packing) for part in parts], tally)

    def _example(self, visit: Visit, tally: Tally) -> Example:
        for attempt in range(ATTEMPTS):
            place = self._order.replacement(*visit, attempt) if attempt else self._order.place(*visit)
            good = read_good(self._shards, place, self._image_size, tally)
            if good is not None:
                return draw(*good, self._data, np.random.default_rng([self._seed, *visit]))
        raise RuntimeError(f"data: no good sample in {ATTEMPTS} tries; causes: {dict(tally.counts)}")


def read_good(shards: Shards, place: Place, image_size: int, tally: Tally) -> tuple[Record, Tensor] | None:
    """A record and its image, uint8 [3, S, S]; None for a bad one, which the tally then holds."""
    name = shards.name(*place)
    try:
        key, parts = shards.read(*place)
        name = shards.name(place.shard, key)
        encoded, record = parse_sample(parts)
        image = decode(encoded, image_size)
    except BadRecord as bad:
        tally.bad(name, bad)
        return None
    tally.defects(name, record)
    return record, image
