"""Records of shards in file order, once and without augmentation, as an evaluation reads them."""

import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import NamedTuple

from fgclip_fast import config
from fgclip_fast.data.augment import plain
from fgclip_fast.data.decode import decode
from fgclip_fast.data.index import index
from fgclip_fast.data.order import SampleAddress
from fgclip_fast.data.samples import DefectCounts, read_good
from fgclip_fast.data.shards import Shards, expand
from fgclip_fast.inputs.batch import Example

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """A usable sample."""

    name: str
    """Of the sample: ``SHARD:NUMBER``, the number counted from 0."""
    example: Example


class FileOrder:
    """All samples of some shards, in file order; any part of them can be read at any time.

    Args:
        pattern: shards, as :func:`~fgclip_fast.data.shards.expand` takes them.
        image_size: side S of the square images.
        data: gives the prefix of short captions, and how many of the first regions and negatives are taken.
        counts: gains the number of damaged shards.

    Raises:
        OSError: a shard does not exist or cannot be read.
    """

    def __init__(
        self, pattern: str, *, image_size: int, data: config.Data | None = None, counts: Counter[str] | None = None
    ) -> None:
        self._image_size, self._data = image_size, data or config.Data()
        self.paths = expand(pattern)
        """The tar files."""
        self._shards = Shards(self.paths)
        # Not by extent(): img2dataset's number of samples does not show damage.
        sizes = [_samples(path, Counter() if counts is None else counts) for path in self.paths]
        self._ends = list(accumulate(sizes))

    def __len__(self) -> int:
        """Number of samples, usable or not."""
        return self._ends[-1] if self._ends else 0

    def read(self, positions: Sequence[int], counts: Counter[str] | None = None) -> Iterator[Found]:
        """Read the usable samples at some positions; ``counts`` gains the number of defects by cause."""
        counts = Counter() if counts is None else counts
        for position in positions:
            shard = bisect_right(self._ends, position)
            address = SampleAddress(shard, position - (self._ends[shard - 1] if shard else 0))
            defects = DefectCounts()
            good = read_good(self._shards, address, self._image_size, defects, decode)
            defects.report(counts)
            if good is not None:
                yield Found(f"{self.paths[shard].name}:{address.sample}", plain(*good, self._data))


def examples(
    pattern: str,
    *,
    image_size: int,
    data: config.Data | None = None,
    limit: int | None = None,
    counts: Counter[str] | None = None,
) -> Iterator[Example]:
    """Read every usable record of some shards once, in file order, without augmentation.

    A region's text is its short expression, its box is as given.

    Args:
        pattern: shards, as :func:`~fgclip_fast.data.shards.expand` takes them.
        image_size: side S of the square images.
        data: gives the prefix of short captions, and how many of the first regions and negatives are taken.
        limit: largest number of examples.
        counts: gains the number of defects by cause.
    """
    samples = FileOrder(pattern, image_size=image_size, data=data, counts=counts)
    return (found.example for found in islice(samples.read(range(len(samples)), counts), limit))


def _samples(path: Path, counts: Counter[str]) -> int:
    found = index(path)
    defects = DefectCounts()
    if found.damaged_at >= 0:
        defects.add_damaged_shard(path, found.damaged_at, found.samples)
    defects.report(counts)
    if found.samples == 0:
        log.warning("%s: holds no sample", path)
    return found.samples
