"""Find duplicates among as many images as a set has: time and memory should grow as their number, not by its square.

python -m benchmarks.duplicates_size --images 1000000 12000000
python -m benchmarks.duplicates_size --images 1000000 --alike         # at worst: most look like 64 others in a band

It is what the stage *filter* decides of the whole set, given the digests and hashes of its shards, on one core. Hashes
are random; one image in ten is an earlier one, the same file or with a bit changed in each hash.
"""

import multiprocessing
import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import tyro

from fgclip_fast.curate.filters import Filter

SHARD = 5000
"""Images of a shard."""


def duplicates_size(images: tuple[int, ...], *, alike: bool = False) -> None:
    """Measure at each size, in a process of its own.

    Args:
        images: numbers of images.
        alike: hashes as of drawings on white, of which few bits are set, so that most agree in a band with many others.
    """
    print("    images  seconds    GB  repeat an earlier one", flush=True)
    for count in images:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            seconds, memory, repeats = process.submit(measured, count, alike).result()
        print(f"{count:10,d} {seconds:8.1f} {memory:5.2f}  {repeats:,}", flush=True)


def measured(count: int, alike: bool) -> tuple[float, float, int]:
    """Seconds of the core, gigabytes more than before, and images that repeat an earlier one."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    repeated = Filter().decide(marks(count, alike))
    seconds = time.process_time() - start
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    return seconds, memory, sum(map(len, repeated.values()))


def marks(count: int, alike: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the first pass finds in each shard; the tenth of a shard that repeats is of the shard before."""
    random, before = np.random.default_rng(0), None
    for number, first in enumerate(range(0, count, SHARD)):
        digests = random.integers(0, 2**64, (SHARD, 2), np.uint64)
        hashes = random.integers(0, 2**64, (SHARD, 3), np.uint64)
        for _ in range(4 if alike else 0):
            hashes &= random.integers(0, 2**64, (SHARD, 3), np.uint64)
        if before is not None:
            same, near = slice(0, None, 20), slice(10, None, 20)
            digests[same], hashes[same] = (array[same] for array in before)
            bits = np.left_shift(np.uint64(1), random.integers(0, 64, (SHARD, 3), np.uint64))
            hashes[near] = before[1][near] ^ bits[near]
        before = digests, hashes
        rows = np.concatenate([digests, hashes.byteswap()], axis=1)[: count - first]
        yield f"{number:05d}.tar", {"marks": rows.tobytes().hex(), "without": []}


if __name__ == "__main__":
    tyro.cli(duplicates_size)
