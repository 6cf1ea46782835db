"""Sends the finished shards of an import to object storage; a call that was stopped goes on."""

import json
from pathlib import Path

from fgclip_fast.data.importers.work_folder import MANIFEST, PLAN, REFUSED_FILE
from fgclip_fast.data.index import index
from fgclip_fast.data.sending import send
from fgclip_fast.files.whole_file import write_json
from fgclip_fast.process.progress import Progress


def upload(folder: Path, url: str) -> None:
    """Send an import: its plan, each shard with its index, the list of what was refused, and last what marks it whole.

    Args:
        folder: holds the import; ``sent.json`` there keeps which shards were sent, and they are deleted.
        url: of a folder in object storage, such as ``s3://bucket/mine``; what else it holds stays.

    Raises:
        OSError: the storage cannot be written, or holds something else than was sent.
    """
    note = folder / "sent.json"
    there = json.loads(note.read_bytes()) if note.exists() else []
    send(folder / PLAN, f"{url}/{PLAN}")
    shards = sorted(folder.glob("*.tar"))
    progress = Progress(len({*there, *(shard.name for shard in shards)}), len(there))
    try:
        for shard in shards:
            if shard.name not in there:
                _send_shard(shard, url)
                there.append(shard.name)
                write_json(note, there)
                progress.update(len(there), f"shards sent to {url}")
            shard.unlink()
    finally:
        progress.close()
    for name in (REFUSED_FILE, MANIFEST):
        send(folder / name, f"{url}/{name}")


def _send_shard(shard: Path, url: str) -> None:
    """Send a shard after its index, so that one that can be listed has its index beside it."""
    index(shard)  # so that its file is there
    for path in (shard.with_name(f"{shard.name}.index"), shard):
        if path.exists():
            send(path, f"{url}/{path.name}")
