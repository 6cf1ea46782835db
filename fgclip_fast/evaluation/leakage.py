"""Validation images that training has seen: equal files, and near-duplicates by perceptual hashes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fgclip_fast.data.causes import BadRecord
from fgclip_fast.data.decode import decode
from fgclip_fast.data.duplicates import SIZE, Hashes, digest_of, groups, hashes_of
from fgclip_fast.data.processes import cores
from fgclip_fast.data.records import parse_sample
from fgclip_fast.data.shards import Shards, addresses_in
from fgclip_fast.evaluation.share import Share, parts_of

PART = 256
"""Samples of a part."""


class Leak(NamedTuple):
    """Validation images with a near-duplicate among the training images."""

    images: int
    """Validation images that can be read."""
    seen: int
    """Those that training has too."""
    example: str
    """A pair of samples; "" without one."""


class _Looked(NamedTuple):
    name: str
    digest: bytes
    hashes: Hashes


def leak(training: Sequence[Path], validation: Sequence[Path], share: Share) -> Leak:
    """Compare the images of two sets of shards; the processes divide the reading.

    Args:
        training, validation: tar files.
        share: the processes.

    Raises:
        OSError: a shard cannot be read.
    """
    paths = [*training, *validation]
    shards = Shards(paths)
    addresses = addresses_in(paths)

    def look(address: tuple[int, int]) -> tuple[int, _Looked] | None:
        try:
            sample = shards.read(*address)
            image, _ = parse_sample(sample.parts)
            hashes = hashes_of(decode(image, SIZE))
        except BadRecord:
            return None
        name = f"{paths[address[0]].name}:{address[1]}"
        return address[0], _Looked(name, digest_of(image), hashes)

    def work(part: range) -> list[tuple[int, _Looked]]:
        with ThreadPoolExecutor(cores()) as threads:
            found = threads.map(look, addresses[part.start : part.stop])
            return [one for one in found if one is not None]

    def figures(parts: list[list[tuple[int, _Looked]]]) -> Leak:
        found = [one for part in parts for one in part]
        return _compared([(shard >= len(training), looked) for shard, looked in found])

    return share.measure(parts_of(len(addresses), PART), work, figures, "images compared with those of training")


def _compared(found: Sequence[tuple[bool, _Looked]]) -> Leak:
    """Group all images; ``found`` says of each whether it is of validation."""
    held_out = np.array([out for out, _ in found], dtype=bool)
    if not held_out.any() or held_out.all():
        return Leak(int(held_out.sum()), 0, "")
    digests = np.frombuffer(b"".join(one.digest for _, one in found), np.uint8).reshape(-1, 16)
    group = groups(digests, np.array([one.hashes for _, one in found], np.uint64))
    trained = np.unique(group[~held_out])
    seen = np.flatnonzero(held_out & np.isin(group, trained))
    example = ""
    if len(seen):
        twin = np.flatnonzero(~held_out & (group == group[seen[0]]))[0]
        example = f"{found[seen[0]][1].name} and {found[twin][1].name}"
    return Leak(int(held_out.sum()), len(seen), example)
