"""Choose records to show, the same ones each time, and read them again."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fgclip_fast.data.causes import BadRecord
from fgclip_fast.data.records import IMAGE_NAMES, Record, Region, parse_sample, part_name
from fgclip_fast.data.shards import Shards
from fgclip_fast.inspection.survey import Address, Survey


class Shown(NamedTuple):
    """A record with its image."""

    name: str
    encoded: bytes
    record: Record


class Triple(NamedTuple):
    """A region with its image."""

    shown: Shown
    region: Region


class Reader:
    """Reads records of a survey by address."""

    def __init__(self, survey: Survey) -> None:
        self._survey, self._shards = survey, Shards(survey.shards)

    def name(self, address: Address) -> str:
        """Name of a sample, as messages have it."""
        return f"{self._survey.shards[address.shard].name}:{address.sample}"

    def read(self, address: Address) -> Shown | None:
        """Read a record; None if it is not usable."""
        try:
            return Shown(self.name(address), *parse_sample(self._shards.read(*address).parts))
        except BadRecord:
            return None

    def image(self, address: Address) -> bytes:
        """The image file of a sample that may be bad; empty if it has none."""
        try:
            parts = self._shards.read(*address).parts
        except BadRecord:
            return b""
        name = part_name(parts, IMAGE_NAMES)
        return b"" if name is None else parts[name]

    def sheet(self, count: int) -> list[Shown]:
        """Up to ``count`` records, spread over the whole set by a hash of their address."""
        chosen = _spread(self._survey.part.addresses)[:count]
        return [shown for shown in map(self.read, sorted(chosen)) if shown is not None]

    def triples(self, count: int) -> list[Triple]:
        """Up to ``count`` regions of different images, those with negatives first."""
        with_regions = [a for a, n in zip(self._survey.part.addresses, self._survey.part.regions, strict=True) if n]
        found = list(self._first_regions(_spread(with_regions)[: 4 * count]))
        found.sort(key=lambda triple: not triple.region.negatives)
        return found[:count]

    def _first_regions(self, addresses: Sequence[Address]) -> Iterator[Triple]:
        for address in addresses:
            shown = self.read(address)
            if shown is not None and shown.record.regions:
                yield Triple(shown, max(shown.record.regions, key=lambda region: bool(region.negatives)))


def _spread(addresses: Sequence[Address]) -> list[Address]:
    return sorted(addresses, key=lambda address: hashlib.blake2b(repr(tuple(address)).encode(), digest_size=8).digest())
