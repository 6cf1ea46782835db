"""Copies finished shards to object storage by fsspec; a call that was stopped goes on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fgclip_fast.curate.folder import read_json
from fgclip_fast.data import remote
from fgclip_fast.data.index import index
from fgclip_fast.progress import Progress
from fgclip_fast.whole_file import write_json


def upload(shards: Sequence[Path], url: str, note: Path) -> int:
    """Copy shards, each with its index, to a folder in object storage.

    Args:
        shards: finished ones.
        url: of the folder, such as ``s3://bucket/mine``; what else it holds stays.
        note: file that keeps which shards are there, by their sizes and times here.

    Returns:
        The number of shards copied by this call.

    Raises:
        ValueError: fsspec or the package of the protocol is missing.
        OSError: the storage cannot be written, or holds something else than was sent.
    """
    system, folder = remote.system_of(url.rstrip("/"))
    there = read_json(note) or {}
    states = {shard: [url, *remote.state(shard)] for shard in shards}
    missing = [shard for shard in shards if there.get(shard.name) != states[shard]]
    progress = Progress(len(shards), len(shards) - len(missing))
    try:
        for done, shard in enumerate(missing, start=len(shards) - len(missing) + 1):
            index(shard)  # so that its file is there
            # The shard comes last: one that can be listed has its index beside it.
            for path in (shard.with_name(f"{shard.name}.index"), shard):
                if path.exists():
                    _send(system, path, f"{folder}/{path.name}", url)
            there[shard.name] = states[shard]
            write_json(note, there)
            progress.update(done, f"shards copied to {url}")
    finally:
        progress.close()
    return len(missing)


def _send(system: Any, path: Path, target: str, url: str) -> None:
    try:
        system.makedirs(target.rpartition("/")[0], exist_ok=True)
        system.put_file(str(path), target)
        system.invalidate_cache()
        size = system.info(target)["size"]
    except Exception as error:  # each storage raises its own
        raise OSError(
            f"curate shards: {path.name} cannot be copied to {url}: {error}; the same command goes on"
        ) from error
    if size != path.stat().st_size:
        raise OSError(f"curate shards: {url}/{path.name} must have {path.stat().st_size} bytes, got {size}")
