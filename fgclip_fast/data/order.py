"""The order of the samples in an epoch: arithmetic on (seed, epoch, position), the same for any world size.

The samples of all shards, end to end, are cut into lanes of equal length. Position ``p`` of an epoch lies in lane
``p mod lanes``, and rank ``r`` of ``W`` takes the positions with ``p mod W == r``. As ``W`` divides the number of
lanes, each rank keeps to its own, so a node reads only the shards of its lanes. Within a lane the shards are permuted,
and then the samples within a window of consecutive shards, so that disks read nearly in sequence. A set of at most
2**17 samples is one lane and one window: it is shuffled as a whole, since the file cache in memory holds it.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

SMALL = 2**17
"""Sets up to this size are shuffled as a whole."""
_WINDOWS = 2  # permutations kept for each lane, since a batch can straddle two windows


class SampleAddress(NamedTuple):
    """Shard, and sample in the shard, both counted from 0."""

    shard: int
    sample: int


class Order:
    """The epochs of a training set.

    Args:
        counts: samples of each shard.
        seed: seed of all permutations.
        lanes: number of lanes.
        window: number of consecutive shards of a lane whose samples are shuffled together.
        world_size: number of processes that share each epoch; must divide ``lanes``.
        small: sets up to this size are one lane and one window.

    Raises:
        ValueError: ``world_size`` does not divide ``lanes``, or the shards hold no samples.
    """

    def __init__(
        self, counts: Sequence[int], *, seed: int, lanes: int, window: int, world_size: int = 1, small: int = SMALL
    ) -> None:
        if lanes % world_size:
            raise ValueError(
                f"data: the number of processes must divide data.lanes, got {world_size} and {lanes}; "
                f"pass --data.lanes {-(-lanes // world_size) * world_size}"
            )
        self.samples = sum(counts)
        if self.samples == 0:
            raise ValueError(f"data: the {len(counts)} shards hold no samples")
        whole = self.samples <= small
        self.lanes = 1 if whole else lanes
        self.world_size = world_size
        self._seed = seed % 2**63  # NumPy refuses negative seeds
        self._window = len(counts) if whole else window
        self._ends = list(accumulate(counts))  # end of each shard in the sequence of all samples
        self._windows: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()
        self._plans: OrderedDict[tuple[int, int], _Plan] = OrderedDict()

    def positions(self, consumed: int, global_batch: int, rank: int) -> range:
        """Return the positions of one rank in the global batch that follows ``consumed`` samples of an epoch."""
        first = consumed + (rank - consumed) % self.world_size
        return range(first, consumed + global_batch, self.world_size)

    def address(self, epoch: int, position: int) -> SampleAddress:
        """Return the sample at a position, ``0 <= position < samples``."""
        i, lane = divmod(position, self.lanes)
        plan = self._plan(epoch, lane)
        w = bisect_right(plan.window_ends, i)
        start = plan.window_ends[w - 1] if w else 0
        window = self._permuted(epoch, lane, w, plan.window_ends[w] - start)
        return plan.locate(start + int(window[i - start]))

    def replacement(self, epoch: int, position: int, attempt: int) -> SampleAddress:
        """Return the sample of the same lane to try after ``attempt`` bad ones at a position."""
        lane = position % self.lanes
        i = _hash(self._seed, epoch, position, attempt) % self._length(lane)
        return self._plan(epoch, lane).locate(i)

    def _length(self, lane: int) -> int:
        return (self.samples - lane + self.lanes - 1) // self.lanes

    def _permuted(self, epoch: int, lane: int, window: int, size: int) -> np.ndarray:
        def make() -> np.ndarray:
            return _random(self._seed, epoch, lane, window).permutation(size).astype(np.int32)

        return cached(self._windows, (epoch, lane, window), make, _WINDOWS * self.lanes)

    def _plan(self, epoch: int, lane: int) -> "_Plan":
        return cached(self._plans, (epoch, lane), lambda: self._make_plan(epoch, lane), 2 * self.lanes)

    def _make_plan(self, epoch: int, lane: int) -> "_Plan":
        """Shuffle the lane's pieces of shards for an epoch and cut them into windows."""
        pieces = self._pieces(lane)
        pieces = [pieces[i] for i in _random(self._seed, epoch, lane).permutation(len(pieces))]
        ends = list(accumulate(stop - start for _, start, stop in pieces))
        return _Plan(pieces, ends, [*ends[self._window - 1 : -1 : self._window], ends[-1]])

    def _pieces(self, lane: int) -> list[tuple[int, int, int]]:
        """(shard, first, stop) of the samples of each shard that belong to the lane."""
        start = sum(self._length(before) for before in range(lane))
        stop = start + self._length(lane)
        pieces = []
        shard = bisect_right(self._ends, start)
        while start < stop:
            end, begin = min(stop, self._ends[shard]), self._ends[shard - 1] if shard else 0
            if end > start:
                pieces.append((shard, start - begin, end - begin))
            start, shard = end, shard + 1
        return pieces


class _Plan(NamedTuple):
    """The order of a lane's shards in one epoch."""

    pieces: list[tuple[int, int, int]]
    """(shard, first, stop) of each piece of a shard."""
    ends: list[int]
    """End of each piece, in samples of the lane."""
    window_ends: list[int]
    """End of each window of pieces, in samples of the lane."""

    def locate(self, i: int) -> SampleAddress:
        """Return the lane's sample ``i`` in the order before windows are shuffled."""
        piece = bisect_right(self.ends, i)
        shard, first, _ = self.pieces[piece]
        return SampleAddress(shard, first + i - (self.ends[piece - 1] if piece else 0))


def cached(cache: OrderedDict, key: tuple, make: Callable[[], Any], size: int) -> Any:
    """Get or make a value; the ``size`` used last are kept, since positions rise and older ones are not needed."""
    if key not in cache:
        cache[key] = make()
        if len(cache) > size:
            cache.popitem(last=False)
    else:
        cache.move_to_end(key)
    return cache[key]


def _random(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def _hash(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
