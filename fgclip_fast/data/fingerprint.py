"""The fingerprint of a set of shards; another name, size or number of samples of a shard gives another."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgclip_fast.data.index import extents
from fgclip_fast.data.shards import expand


def fingerprints(sets: Mapping[str, Sequence[Path] | str]) -> dict[str, dict[str, Any]]:
    """Make the fingerprint of each set, such as "train" and "val"; empty ones are left out."""
    return {name: fingerprint(shards) for name, shards in sets.items() if shards}


def fingerprint(shards: Sequence[Path] | str) -> dict[str, Any]:
    """Count shards, samples and bytes, and hash each shard's name, size and number of samples.

    Args:
        shards: the files, or a pattern as :func:`~fgclip_fast.data.shards.expand` takes it.
    """
    digest, samples, size = hashlib.sha256(), 0, 0
    paths = expand(shards) if isinstance(shards, str) else shards
    for path, (own, length, _) in zip(paths, extents(paths), strict=True):
        digest.update(f"{path.name} {length} {own}\n".encode())
        samples, size = samples + own, size + length
    return {"shards": len(paths), "samples": samples, "bytes": size, "fingerprint": digest.hexdigest()[:16]}
