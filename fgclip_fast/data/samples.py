"""From positions of an epoch to a batch: read, check, decode, draw, and a good sample for each bad one.

A map-style data set whose item is a whole batch; it runs in the loader's workers, or in the training process.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from fgclip_fast import config
from fgclip_fast.data.causes import DAMAGED_SHARD, DROPPED, BadRecord
from fgclip_fast.data.decode import decode, keep_encoded
from fgclip_fast.data.draw import draw
from fgclip_fast.data.order import Order, Place
from fgclip_fast.data.records import Record, parse_sample
from fgclip_fast.data.shards import Shards
from fgclip_fast.data.transport import Packed, pack
from fgclip_fast.inputs.batch import Batch, Example, Tokenize, make_batch

ATTEMPTS = 100
"""So many samples are tried for one position before the set is called unusable."""

TakeImage = Callable[[bytes, int], Tensor]


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

    def damaged(self, shard: Path, at: int, samples: int) -> None:
        """A shard that cannot be read from byte ``at`` on."""
        self.counts[DAMAGED_SHARD] += 1
        self.lines.append((logging.WARNING, f"{shard}: damaged at byte {at}; its first {samples} samples are used"))

    def defects(self, name: str, record: Record) -> None:
        """What a good record lacks."""
        self.counts.update(defect.cause for defect in record.defects)
        for defect in record.defects:
            if defect.cause in DROPPED:
                self.lines.append((logging.INFO, f"{name}: {defect.cause}: {defect.detail}; dropped"))


class Encoded(NamedTuple):
    """Images of a batch as they are on the disk, for DALI; the others are decoded already."""

    files: Tensor
    """uint8 [N]: the files, end to end."""
    offsets: Tensor
    """int64 [E + 1]: where each begins."""
    rows: Tensor
    """int64 [E]: which image of the batch each is."""
    decoded: Tensor
    """uint8 [B - E, 3, S, S]: the other images."""
    decoded_rows: Tensor
    """int64 [B - E]"""


class Parcel(NamedTuple):
    """What a worker hands over: a batch in its micro-batches, and what had to be done for it."""

    micro_batches: list[Batch]
    """Their images are [B, 3, 0, 0] where they come in ``encoded``."""
    tally: Tally
    visits: list[Visit]
    encoded: Encoded | None = None


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
        encoded: leave decoding to DALI in the training process, where it can.
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
        encoded: bool = False,
    ) -> None:
        self._shards = shards
        self._order = order
        self._data = data
        self._image_size = image_size
        self._seed = seed % 2**63  # numpy refuses a negative one
        self._tokenizer = tokenizer
        self._packing: config.Packing = packing
        self._micro_batch_size = micro_batch_size
        self._encoded = encoded

    def __getitems__(self, visits: Sequence[Visit]) -> Parcel | Packed:
        """The batch of some visits; DataLoader calls this with what the batch sampler gives."""
        parcel = self.encoded(visits) if self._encoded else self.decoded(visits)
        return parcel if get_worker_info() is None else pack(parcel)

    def encoded(self, visits: Sequence[Visit]) -> Parcel:
        """The batch of some visits, its JPEG files as they are."""
        tally = Tally()
        examples = [self._example(visit, tally, keep_encoded) for visit in visits]
        blank = torch.empty(3, 0, 0, dtype=torch.uint8)
        blanks = [example._replace(image=blank) for example in examples]
        encoded = _encoded([example.image for example in examples], self._image_size)
        return Parcel(self._micro_batches(blanks), tally, list(visits), encoded)

    def decoded(self, visits: Sequence[Visit]) -> Parcel:
        """The batch of some visits, decoded here."""
        tally = Tally()
        examples = [self._example(visit, tally, decode) for visit in visits]
        return Parcel(self._micro_batches(examples), tally, list(visits))

    def _micro_batches(self, examples: list[Example]) -> list[Batch]:
        step = self._micro_batch_size or len(examples)
        parts = [examples[first : first + step] for first in range(0, len(examples), step)]
        return [make_batch(part, self._tokenizer, self._packing) for part in parts]

    def _example(self, visit: Visit, tally: Tally, take_image: TakeImage) -> Example:
        for attempt in range(ATTEMPTS):
            place = self._order.replacement(*visit, attempt) if attempt else self._order.place(*visit)
            good = read_good(self._shards, place, self._image_size, tally, take_image)
            if good is not None:
                return draw(*good, self._data, self._image_size, np.random.default_rng([self._seed, *visit]))
        raise RuntimeError(f"data: no good sample in {ATTEMPTS} tries; causes: {dict(tally.counts)}")


def read_good(
    shards: Shards, place: Place, image_size: int, tally: Tally, take_image: TakeImage = decode
) -> tuple[Record, Tensor] | None:
    """A record and its image, uint8 [3, S, S]; None for a bad one, which the tally then holds."""
    name = shards.name(*place)
    try:
        key, parts = shards.read(*place)
        name = shards.name(place.shard, key)
        encoded, record = parse_sample(parts)
        image = take_image(encoded, image_size)
    except BadRecord as bad:
        tally.bad(name, bad)
        return None
    tally.defects(name, record)
    return record, image


def _encoded(images: list[Tensor], size: int) -> Encoded:
    """Tells the files, uint8 [N], from the images, uint8 [3, S, S]."""
    rows = [i for i, image in enumerate(images) if image.dim() == 1]
    decoded_rows = [i for i, image in enumerate(images) if image.dim() == 3]
    nothing = torch.empty(0, dtype=torch.uint8)
    return Encoded(
        files=torch.cat([nothing, *(images[i] for i in rows)]),
        offsets=torch.tensor([0, *(len(images[i]) for i in rows)]).cumsum(0),
        rows=torch.tensor(rows, dtype=torch.int64),
        decoded=torch.cat([nothing.reshape(0, 3, size, size), *(images[i][None] for i in decoded_rows)]),
        decoded_rows=torch.tensor(decoded_rows, dtype=torch.int64),
    )
