"""Embeddings of texts that one model made, kept so that each text is embedded once, by this command or by another.

A folder of them has a folder for each model, of files that are written whole and never changed: any number of processes
may read and write at once. What is cut short, or cannot be written, costs time and nothing else.
"""

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fgclip_fast.files.whole_file import replacing

log = logging.getLogger("fgclip_fast")

LARGEST = 4 * 2**30
"""Bytes that the folders of all models may take; beyond, those not used for the longest time are removed."""
_DIGEST = 16
_NAME = re.compile(r"[0-9a-f]{32}")


def key(kind: str, *texts: str) -> bytes:
    """Name an embedding: of a text, or of several together, by one path of the text tower."""
    joined = "\0".join((kind, *texts)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(joined, digest_size=_DIGEST).digest()


class TextRows:
    """Rows by key, in memory and, if a folder is given, on disk.

    Args:
        folder: of one model; it is made if missing. None keeps rows in memory alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._blocks: list[Tensor] = []
        self._place: dict[bytes, tuple[int, int]] = {}
        for file in sorted(folder.glob("*.safetensors")) if folder is not None else ():
            self._read(file)

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Positions of the keys without a row, each key once."""
        first: dict[bytes, int] = {}
        for position, one in enumerate(keys):
            if one not in self._place:
                first.setdefault(one, position)
        return list(first.values())

    def add(self, keys: Sequence[bytes], rows: Tensor) -> None:
        """Keep rows in memory, fp32 Tensor[N, D]."""
        self._place |= {one: (len(self._blocks), row) for row, one in enumerate(keys)}
        self._blocks.append(rows)

    def save(self, keys: Sequence[bytes], rows: Tensor) -> None:
        """Write rows to the folder, if there is one; a failure is told once."""
        if self._folder is None or not keys:
            return
        joined = b"".join(keys)
        content = {"keys": torch.frombuffer(bytearray(joined), dtype=torch.uint8).view(-1, _DIGEST), "rows": rows}
        name = f"{hashlib.blake2b(joined, digest_size=_DIGEST).hexdigest()}.safetensors"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._folder / name) as partial:
                save_file(content, partial)
        except OSError as error:
            log.warning("embeddings of texts are not kept: %s", error)
            self._folder = None

    def rows(self, keys: Sequence[bytes]) -> Tensor:
        """Rows of keys that are there, fp32 Tensor[N, D] on the CPU; Tensor[0, 0] without keys."""
        if not keys:
            return torch.empty(0, 0)
        places = np.array([self._place[one] for one in keys])
        found = torch.empty(len(keys), self._blocks[places[0, 0]].shape[1])
        for block in np.unique(places[:, 0]):
            at = np.flatnonzero(places[:, 0] == block)
            found[torch.from_numpy(at)] = self._blocks[block][torch.from_numpy(places[at, 1])]
        return found

    def _read(self, file: Path) -> None:
        try:
            content = load_file(file)
            keys, rows = content["keys"].numpy(), content["rows"]
            if keys.shape != (len(rows), _DIGEST) or rows.dtype != torch.float32:
                raise ValueError("not embeddings of texts")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            log.warning("embeddings of texts: %s is not used: %s", file, error)
            return
        self.add([one.tobytes() for one in keys], rows)


def of_model(folder: Path, model: str) -> TextRows:
    """Open the rows of a model and remove those of the models not used for the longest time, beyond :data:`LARGEST`.

    Args:
        folder: of all models. Of what else it may hold nothing is touched.
        model: what the rows depend on; two models with equal ones share them.
    """
    own = folder / hashlib.blake2b(model.encode(), digest_size=_DIGEST).hexdigest()
    if own.is_dir():
        with contextlib.suppress(OSError):
            os.utime(own)
    left = LARGEST
    others = [one for one in folder.glob("*") if _NAME.fullmatch(one.name)] if folder.is_dir() else []
    for one in sorted(others, key=_used, reverse=True):
        files = [file for file in one.glob("*.safetensors") if _NAME.fullmatch(file.stem)]
        with contextlib.suppress(OSError):  # another process may be removing them
            left -= sum(file.stat().st_size for file in files)
            if left < 0 and one != own:
                for file in files:
                    file.unlink()
                one.rmdir()
    return TextRows(own)


def _used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
