"""What identifies a set of shards: enough to see that a run's data are not those of another."""

import hashlib
from typing import Any

from fgclip_fast import config
from fgclip_fast.data.index import extent
from fgclip_fast.data.shards import expand


def fingerprints(data: config.Data) -> dict[str, dict[str, Any]]:
    """Those of the training and validation shards, where there are any."""
    return {name: fingerprint(getattr(data, name)) for name in ("train", "val") if getattr(data, name)}


def fingerprint(pattern: str) -> dict[str, Any]:
    """Number of shards and samples, bytes, and a hash over each shard's name, size and number of samples."""
    digest, samples, size = hashlib.sha256(), 0, 0
    paths = expand(pattern)
    for path in paths:
        own, length = extent(path).samples, path.stat().st_size
        digest.update(f"{path.name} {length} {own}\n".encode())
        samples, size = samples + own, size + length
    return {"shards": len(paths), "samples": samples, "bytes": size, "fingerprint": digest.hexdigest()[:16]}
