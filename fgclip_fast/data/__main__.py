"""``fgclip data``: make shards from own records, index shards, check shards."""

import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import Positional

from fgclip_fast import command
from fgclip_fast.config import Data
from fgclip_fast.data.causes import BAD
from fgclip_fast.data.file_order import examples
from fgclip_fast.data.importers.jsonl import Boxes, write_shards
from fgclip_fast.data.index import index as index_of
from fgclip_fast.data.shards import expand

_THREADS = 8  # more than cores: indexing waits for disks more than it computes


def jsonl(
    source: Positional[Path],
    /,
    *,
    images: Path,
    boxes: Boxes,
    output: Path,
    val: float = 0.0,
    shard_size: int = 1000,
) -> None:
    """Make shards from a list of records and a folder of images.

    Args:
        source: JSON lines or a JSON list of records; a folder of such files; or a .txt that lists them.
        images: folder that the records' image paths start from.
        boxes: meaning of a box's four numbers.
        output: new folder for train-00000.tar, … and val-00000.tar, …
        val: share of the images used for validation, 0 to 1.
        shard_size: records of a shard.
    """
    written, causes = write_shards(source, images, output, boxes=boxes, val=val, shard_size=shard_size)
    print(f"{output}: {written['train']} records to train on, {written['val']} to validate on")
    _print(causes)


def index(shards: Positional[str], /) -> None:
    """Index shards ahead of time, so that training starts at once.

    Args:
        shards: path, glob or {000..999} range of .tar files, or their folder.
    """
    paths = expand(shards)
    samples = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for path, found in zip(paths, pool.map(index_of, paths), strict=True):
            samples += len(found.spans)
            if found.damaged_at >= 0:
                print(f"{path}: ends at byte {found.damaged_at}, after {len(found.spans)} samples")
    print(f"{len(paths)} shards, {samples} samples")


def check(shards: Positional[str], /, *, limit: int | None = None) -> None:
    """Read and decode every record, name each bad one, and count the defects that training would meet.

    Args:
        shards: path, glob or {000..999} range of .tar files, or their folder.
        limit: stop after this many good records.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"data check: --limit must be at least 1 record, got {limit}")
    counts: Counter[str] = Counter()
    found: Counter[str] = Counter()
    everything = Data(regions=sys.maxsize, negatives=sys.maxsize)
    for example in examples(shards, image_size=64, data=everything, limit=limit, counts=counts):
        found["good records"] += 1
        found["regions"] += len(example.boxes)
        found["regions with negatives"] += sum(map(bool, example.hard_texts))
    bad = sum(counts[cause] for cause in BAD)
    print(f"{found['good records']} good records, {bad} bad")
    print(f"{found['regions']} regions, {found['regions with negatives']} of them with negatives")
    _print(counts)
    if not found["good records"]:
        raise ValueError(f"data check: {shards} holds no {'good record' if bad else 'record'}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    commands: dict[str, Any] = {"jsonl": jsonl, "index": index, "check": check}
    with command.frame("data"):
        tyro.extras.subcommand_cli_from_dict(commands, prog="fgclip data", args=arguments)


def _print(counts: Counter[str]) -> None:
    for cause, n in counts.most_common():
        print(f"  {n:8d}  {cause}")


if __name__ == "__main__":
    main()
