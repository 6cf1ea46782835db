"""From visits to a batch: read, check and decode samples, replace bad ones, augment, tokenise.

A map-style data set whose item is a whole batch; it runs in the loader's workers, or in the training process.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from fgclip_fast import config
from fgclip_fast.config.model import Packing
from fgclip_fast.data.augment import augmented
from fgclip_fast.data.causes import DAMAGED_SHARD, DROPPED, BadRecord
from fgclip_fast.data.crop import view
from fgclip_fast.data.cut import count_regions, count_texts
from fgclip_fast.data.decode import decode, encoded_or_decoded, whole
from fgclip_fast.data.order import Order, SampleAddress
from fgclip_fast.data.records import Record, parse_sample
from fgclip_fast.data.shards import Shards
from fgclip_fast.data.transport import SharedTensors, pack
from fgclip_fast.inputs.batch import Batch, Example, Tokenize, make_batch
from fgclip_fast.inputs.image import squash

log = logging.getLogger(__name__)
ATTEMPTS = 100
"""Samples tried for one position before the set is called unusable."""

ImageT = TypeVar("ImageT")


class Visit(NamedTuple):
    """One reading of a sample: a position of an epoch, both counted from 0."""

    epoch: int
    position: int


class DefectCounts:
    """Number of records replaced, regions dropped, texts filled or cut, by cause, and log lines that name the first."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lines: list[tuple[int, str]] = []
        """Level and text of each line."""

    def add_bad_record(self, name: str, bad: BadRecord) -> None:
        """Count a sample that cannot be used."""
        self.counts[bad.cause] += 1
        self.lines.append((logging.WARNING, f"{name}: {bad}; left out"))

    def add_damaged_shard(self, shard: Path, at: int, samples: int) -> None:
        """Count a shard that cannot be read from byte ``at`` on."""
        self.counts[DAMAGED_SHARD] += 1
        self.lines.append((logging.WARNING, f"{shard}: damaged at byte {at}; its first {samples} samples are used"))

    def add_defects(self, name: str, record: Record) -> None:
        """Count what was dropped or filled in a usable record; fills have no line."""
        self.counts.update(defect.cause for defect in record.defects)
        for defect in record.defects:
            if defect.cause in DROPPED:
                self.lines.append((logging.INFO, f"{name}: {defect.cause}: {defect.detail}; dropped"))

    def report(self, counts: Counter[str]) -> None:
        """Write the lines to the log and add the numbers to ``counts``."""
        counts.update(self.counts)
        for level, line in self.lines:
            log.log(level, line)


class EncodedImages(NamedTuple):
    """The images of a batch for DALI: most as files, the others decoded already."""

    files: Tensor
    """uint8 [N]: the files, end to end."""
    offsets: Tensor
    """int64 [E + 1]: the start of each file, and N."""
    rows: Tensor
    """int64 [E]: the row of each file's image in the batch."""
    decoded: Tensor
    """uint8 [B - E, 3, S, S]: the other images."""
    decoded_rows: Tensor
    """int64 [B - E]: their rows."""


class WorkerBatch(NamedTuple):
    """A batch as a worker hands it over."""

    micro_batches: list[Batch]
    """Without pixels, [B, 3, 0, 0], where the images come in ``encoded``."""
    defects: DefectCounts
    visits: list[Visit]
    encoded: EncodedImages | None = None


@dataclass(frozen=True)
class Recipe:
    """The way from the samples of a batch to its tensors.

    Attributes:
        data: regions, negatives and margins of an example, prefix of short captions.
        image_size: side S of the square images, pixels.
        seed: seed of augmentation.
        tokenizer: texts -> flat tokens and offsets; pickled for each worker.
        packing: layout of each micro-batch's texts for the text tower.
        micro_batch_size: images of a micro-batch; None: the whole batch is one.
        encoded: leave decoding to DALI in the training process, where DALI can do it.
    """

    data: config.Data
    image_size: int
    seed: int
    tokenizer: Tokenize
    packing: Packing = "none"
    micro_batch_size: int | None = None
    encoded: bool = False


class Samples(Dataset):
    """The training set; ``samples.__getitems__(visits)`` is the batch of these visits.

    Args:
        shards: the tar files.
        order: the sample at each position of an epoch.
        recipe: how its batches are made.
    """

    def __init__(self, shards: Shards, order: Order, recipe: Recipe) -> None:
        self._shards, self._order, self._recipe = shards, order, recipe
        self._seed = recipe.seed % 2**63  # NumPy refuses negative seeds
        self.at_hand: Any = None
        """Shard and sample that each worker reads, int64 [2 * workers] in memory that all processes share; -1: none."""

    def names(self, visits: Sequence[Visit]) -> list[str]:
        """Name the first choice of each visit."""
        return [self._shards.name(*self._order.address(*visit)) for visit in visits]

    def names_at_hand(self) -> str:
        """Name the samples that the workers were reading."""
        pairs = zip(self.at_hand[::2], self.at_hand[1::2], strict=True) if self.at_hand is not None else ()
        names = [self._shards.name(shard, sample) for shard, sample in pairs if shard >= 0]
        return f"at hand: {'; '.join(names)}" if names else "no sample at hand"

    def in_micro_batches(self, images: int | None) -> "Samples":
        """The same samples, in micro-batches of another size; None: one a batch."""
        return Samples(self._shards, self._order, replace(self._recipe, micro_batch_size=images))

    def __getitems__(self, visits: Sequence[Visit]) -> WorkerBatch | SharedTensors:
        """Make the batch of some visits; DataLoader calls this with what the batch sampler yields."""
        batch = self.encoded(visits) if self._recipe.encoded else self.decoded(visits)
        return batch if get_worker_info() is None else pack(batch)

    def encoded(self, visits: Sequence[Visit]) -> WorkerBatch:
        """Make the batch of some visits, its JPEG files left encoded."""
        defects = DefectCounts()
        read = [self._read(visit, defects, encoded_or_decoded) for visit in visits]
        without_pixels = torch.empty(3, 0, 0, dtype=torch.uint8)
        examples = [
            self._example(visit, defects, record, without_pixels)
            for visit, (record, _) in zip(visits, read, strict=True)
        ]
        images = _encoded_images([image for _, image in read], self._recipe.image_size)
        return WorkerBatch(self._micro_batches(examples, defects), defects, list(visits), images)

    def decoded(self, visits: Sequence[Visit]) -> WorkerBatch:
        """Make the batch of some visits, decoded here."""
        defects = DefectCounts()
        # A view is cut from all pixels of the file, before they are squashed.
        take = (lambda encoded, _: whole(encoded)) if self._recipe.data.draws_views else decode
        examples = [self._example(visit, defects, *self._read(visit, defects, take)) for visit in visits]
        return WorkerBatch(self._micro_batches(examples, defects), defects, list(visits))

    def _read(
        self, visit: Visit, defects: DefectCounts, take_image: Callable[[bytes, int], ImageT]
    ) -> tuple[Record, ImageT]:
        """The first usable sample of the visit's position and its replacements."""
        for attempt in range(ATTEMPTS):
            address = self._order.replacement(*visit, attempt) if attempt else self._order.address(*visit)
            self._take_in_hand(address)
            good = read_good(self._shards, address, self._recipe.image_size, defects, take_image)
            if good is not None:
                return good
        raise RuntimeError(f"data: no good sample in {ATTEMPTS} tries; causes: {dict(defects.counts)}")

    def _take_in_hand(self, address: SampleAddress) -> None:
        """Let the training process know what this worker reads, should it die of it."""
        worker = get_worker_info()
        if worker is not None and self.at_hand is not None:
            self.at_hand[2 * worker.id : 2 * worker.id + 2] = address

    def _example(self, visit: Visit, defects: DefectCounts, record: Record, image: Tensor) -> Example:
        data, size = self._recipe.data, self._recipe.image_size
        random = np.random.default_rng([self._seed, *visit])
        if data.draws_views:
            record, image = view(record, image, data, random)
            image = squash(image, size)
        count_regions(len(record.regions), data.regions, defects.counts)
        return augmented(record, image, data, size, random)

    def _micro_batches(self, examples: list[Example], defects: DefectCounts) -> list[Batch]:
        step, tokenizer = self._recipe.micro_batch_size or len(examples), self._recipe.tokenizer
        parts = [examples[first : first + step] for first in range(0, len(examples), step)]
        batches = [make_batch(part, tokenizer, self._recipe.packing) for part in parts]
        for part, batch in zip(parts, batches, strict=True):
            count_texts(part, batch.texts, tokenizer, defects.counts)
        return batches


def read_good(
    shards: Shards,
    address: SampleAddress,
    image_size: int,
    defects: DefectCounts,
    take_image: Callable[[bytes, int], ImageT],
) -> tuple[Record, ImageT] | None:
    """Read a sample and count its defects.

    Args:
        shards: the tar files.
        address: the sample to read.
        image_size: side S of the square image.
        defects: gains what is wrong with the sample.
        take_image: (image file, S) -> image; :func:`decode` or :func:`encoded_or_decoded`.

    Returns:
        The record and its image; None for a bad one.
    """
    name = shards.name(*address)
    try:
        key, parts = shards.read(*address)
        name = shards.name(address.shard, key)
        encoded, record = parse_sample(parts)
        image = take_image(encoded, image_size)
    except BadRecord as bad:
        defects.add_bad_record(name, bad)
        return None
    defects.add_defects(name, record)
    return record, image


def _encoded_images(images: list[bytes | Tensor], size: int) -> EncodedImages:
    files = {row: image for row, image in enumerate(images) if isinstance(image, bytes)}
    decoded = {row: image for row, image in enumerate(images) if isinstance(image, Tensor)}
    none = torch.empty(0, 3, size, size, dtype=torch.uint8)
    return EncodedImages(
        files=torch.from_numpy(np.frombuffer(bytearray(b"".join(files.values())), np.uint8)),
        offsets=torch.tensor([0, *map(len, files.values())]).cumsum(0),
        rows=torch.tensor(list(files), dtype=torch.int64),
        decoded=torch.cat([none, *(image[None] for image in decoded.values())]),
        decoded_rows=torch.tensor(list(decoded), dtype=torch.int64),
    )
