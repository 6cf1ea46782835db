"""A training set of several sets with weights: a set of weight w gives ⌊w⌋ passes and a part of its samples an epoch.

The sequence of all samples that :class:`~fgclip_fast.data.order.Order` permutes holds each set ⌊w⌋ times, and then
places for the rest of w, in pieces of about a shard. Which samples stand at those places follows from seed and epoch:
epoch after epoch they go through the set's shards, in an order that is drawn anew each time all samples have had their
turn. So with weight 0.5 two epochs hold each sample once, and nothing is stored.
"""

import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from fgclip_fast.data.order import SMALL, Order, SampleAddress, cached

_ORDERS_KEPT = 4  # orders of a set's shards


class Source(NamedTuple):
    """One of the sets: its weight, and its shards by their positions among all."""

    weight: float
    shards: list[int]


class MixedOrder(Order):
    """The epochs of several sets with weights; one set of weight 1 gives the order of :class:`Order`.

    Args:
        counts: samples of each shard.
        sources: the sets.
        seed, lanes, window, world_size, small: as of :class:`Order`.

    Raises:
        ValueError: as :class:`Order`, or an epoch would hold no sample.
    """

    def __init__(
        self,
        counts: Sequence[int],
        sources: Sequence[Source],
        *,
        seed: int,
        lanes: int,
        window: int,
        world_size: int = 1,
        small: int = SMALL,
    ) -> None:
        self._entries: list[SampleAddress | tuple[_Rest, int]] = []
        """Of each entry of the sequence: its shard and 0, or its rest of a set and its first place there."""
        lengths: list[int] = []
        for number, source in enumerate(sources):
            own = [counts[shard] for shard in source.shards]
            passes, rest = int(source.weight), round(source.weight % 1 * sum(own))
            self._entries += [SampleAddress(shard, 0) for shard in source.shards] * passes
            lengths += own * passes
            part = _Rest(number, rest, source.shards, own, seed % 2**63)
            piece = max(1, math.ceil(sum(own) / max(1, len(own))))
            for first in range(0, rest, piece):
                self._entries.append((part, first))
                lengths.append(min(piece, rest - first))
        super().__init__(lengths, seed=seed, lanes=lanes, window=window, world_size=world_size, small=small)

    def address(self, epoch: int, position: int) -> SampleAddress:
        """Return the sample at a position, ``0 <= position < samples``."""
        return self._resolved(epoch, super().address(epoch, position))

    def replacement(self, epoch: int, position: int, attempt: int) -> SampleAddress:
        """Return the sample of the same lane to try after ``attempt`` bad ones at a position."""
        return self._resolved(epoch, super().replacement(epoch, position, attempt))

    def _resolved(self, epoch: int, at: SampleAddress) -> SampleAddress:
        entry = self._entries[at.shard]
        if isinstance(entry, SampleAddress):
            return SampleAddress(entry.shard, at.sample)
        part, first = entry
        return part.sample(epoch, first + at.sample)


class _Rest:
    """The samples that a set gives beside its whole passes: ``size`` an epoch, in turn."""

    def __init__(self, number: int, size: int, shards: list[int], counts: list[int], seed: int) -> None:
        self._key, self._size, self._shards, self._counts = (seed, number), size, shards, counts
        self._samples = sum(counts)
        self._orders: OrderedDict[tuple[int], tuple[list[int], list[int]]] = OrderedDict()

    def sample(self, epoch: int, place: int) -> SampleAddress:
        turn, i = divmod(epoch * self._size + place, self._samples)
        order, ends = cached(self._orders, (turn,), lambda: self._order(turn), _ORDERS_KEPT)
        piece = bisect_right(ends, i)
        return SampleAddress(self._shards[order[piece]], i - (ends[piece - 1] if piece else 0))

    def _order(self, turn: int) -> tuple[list[int], list[int]]:
        order = np.random.default_rng([*self._key, turn]).permutation(len(self._shards)).tolist()
        return order, list(accumulate(self._counts[i] for i in order))
