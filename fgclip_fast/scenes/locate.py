"""Finds the embedded data set, and writes it when it is first asked for."""

import hashlib
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fgclip_fast.config import Data
from fgclip_fast.files.home_cache import home_cache

log = logging.getLogger("fgclip_fast")
EMBEDDED = "scenes"
"""The value of ``data.train`` or ``data.val`` that stands for the embedded set."""


def embedded() -> Path:
    """Return the folder of the embedded set, and write the set first if it is missing.

    The folder lies in ``$FGCLIP_CACHE``, or in ``~/.cache/fgclip_fast`` if that is not set. Its name holds a
    fingerprint of the code that draws and describes the scenes, so another version writes another folder.
    """
    cache = Path(os.environ.get("FGCLIP_CACHE") or home_cache() / "fgclip_fast")
    folder = cache / f"{EMBEDDED}-{_fingerprint()}"
    if folder.exists():
        return folder
    from fgclip_fast.scenes.write import write_scenes  # here, so that users of own shards load nothing that draws

    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    log.info("scenes: writing the embedded data set to %s (once)", folder)
    write_scenes(partial)
    try:
        partial.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(partial)
    return folder


class Source(NamedTuple):
    """The data of a run as files: what :func:`resolve` makes of the settings."""

    data: Data
    """The settings, with patterns of shards in ``train`` and ``val``; an empty pattern stays empty."""
    levels: Path | None
    """Folder of the embedded set's questions if the run validates on that set; else None."""


def decided(data: Data) -> Data:
    """Replace "auto" in ``data.val``: the embedded set where that is trained on, else none."""
    return replace(data, val=EMBEDDED if data.train == EMBEDDED else "") if data.val == "auto" else data


def resolve(data: Data) -> Source:
    """Replace "scenes" in ``data.train`` and ``data.val`` by the shards of the embedded set, written first if missing.

    Each command calls this once, and hands the result on.
    """
    data = decided(data)
    if EMBEDDED not in (data.train, data.val):
        return Source(data, None)
    folder = embedded()
    train = str(folder / "train-*.tar") if data.train == EMBEDDED else data.train
    val = str(folder / "val-*.tar") if data.val == EMBEDDED else data.val
    return Source(replace(data, train=train, val=val), folder / "levels" if data.val == EMBEDDED else None)


def own_patterns(data: Data) -> dict[str, str]:
    """The patterns, by field, that the user names: neither the embedded set nor, for validation, nothing."""
    named = {"train": data.train, "val": decided(data).val}
    return {name: pattern for name, pattern in named.items() if pattern != EMBEDDED and (pattern or name == "train")}


def _fingerprint() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()[:12]
