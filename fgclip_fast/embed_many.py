"""Embed many images: decoded in other processes, embedded batch by batch, written as one file or as parts."""

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fgclip_fast.data.processes import cores, in_order
from fgclip_fast.files.whole_file import partials, replacing, write_json
from fgclip_fast.inputs.files import Decoded, decode_files
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.fingerprint import weights_hash
from fgclip_fast.process.progress import Progress

log = logging.getLogger("fgclip_fast")

STATE = "_embed.json"
"""File of a folder of parts that says what they are of; readers of parquet pass over names that begin so."""
_FEW = 4  # batches for which starting processes takes longer than decoding here
_MOST = 8  # decoding processes that are started unasked


class Texts(NamedTuple):
    """Texts that are embedded beside the images."""

    words: Sequence[str]
    """The texts; there may be none."""
    rows: np.ndarray
    """fp32 [N, D]."""


class Folder(NamedTuple):
    """How a folder of images is embedded."""

    names: Sequence[str]
    """The image files, in order."""
    batch_size: int
    """Images a forward pass."""
    workers: int | None
    """Processes that decode; 1: this one; None: as many as are of use."""


def write_file(model: FGCLIP, folder: Folder, texts: Texts, path: Path) -> int:
    """Write one .npz or .parquet file, and return the number of images in it.

    Raises:
        ValueError: no image can be read.
    """
    found = list(_embedded(model, folder, _batches(folder.names, folder.batch_size)))
    names = [name for part, _ in found for name in part]
    if not names:
        raise ValueError(f"none of the {len(folder.names)} images can be read")
    write = _write_npz if path.suffix == ".npz" else _write_parquet
    with replacing(path) as temporary:
        write(temporary, names, np.concatenate([rows for _, rows in found]), texts)
    return len(names)


def write_parts(model: FGCLIP, folder: Folder, texts: Texts, path: Path, part_size: int, of: dict[str, Any]) -> int:
    """Write a folder of parquet files, each of the readable ones among ``part_size`` images; return their number.

    A folder that was begun with the same settings goes on with the parts that it lacks. Batches never cross a part, so
    that the bytes are those of an embedding that was not stopped.

    Args:
        model: on its device.
        folder: the images.
        texts: texts, whose similarities become columns.
        path: the folder, made if missing.
        part_size: images a part.
        of: settings, by name, that rule the embeddings; those of this call are added.

    Raises:
        ValueError: the folder holds something else, or parts of other settings; the message names one.
    """
    _begin(path, {**of, **_described(model, folder, texts, part_size)})
    names = folder.names
    parts = {
        path / f"part-{number:06d}.parquet": _batches(names[start : start + part_size], folder.batch_size)
        for number, start in enumerate(range(0, len(names), part_size))
    }
    missing = {part: batches for part, batches in parts.items() if not part.is_file()}
    if len(missing) < len(parts):
        log.info("embed: %s has %d of %d parts and goes on", path, len(parts) - len(missing), len(parts))
    embedded = _embedded(model, folder, [batch for batches in missing.values() for batch in batches])
    for part, batches in missing.items():
        found = list(islice(embedded, len(batches)))
        with replacing(part) as temporary:
            _write_parquet(
                temporary, [name for own, _ in found for name in own], np.concatenate([x for _, x in found]), texts
            )
    return sum(map(_length, parts))


def _batches(names: Sequence[str], size: int) -> list[Sequence[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]


def _embedded(
    model: FGCLIP, folder: Folder, batches: Sequence[Sequence[str]]
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield the names and embeddings, fp32 [n, D], of the readable files of each batch; warn of the others."""
    size, began = model.config.vision.image_size, time.monotonic()
    before = at = len(folder.names) - sum(map(len, batches))
    shown = Progress(len(folder.names), done=before)
    workers = folder.workers or (1 if len(batches) <= _FEW else min(cores(), _MOST))
    decoded = in_order(decode_files, ((batch, size) for batch in batches), workers, "embed")
    for batch, part in zip(batches, decoded, strict=True):
        rows = _rows(model, part)
        at += len(batch)
        shown.update(at, f"{(at - before) / (time.monotonic() - began):.1f} images/s")
        yield part.read, rows
    shown.close()


def _rows(model: FGCLIP, decoded: Decoded) -> np.ndarray:
    for reason in decoded.refused:
        log.warning("%s; left out", reason)
    return model.encode_image(torch.from_numpy(decoded.pixels)).cpu().numpy()


def _described(model: FGCLIP, folder: Folder, texts: Texts, part_size: int) -> dict[str, Any]:
    """What rules the bytes of the parts, by the names of the command."""
    names = blake2b(digest_size=16)
    for name in folder.names:
        names.update(f"{name}\0{os.stat(name).st_size}\0".encode("utf-8", "surrogateescape"))
    return {
        "images": f"{len(folder.names)} files, {names.hexdigest()}",
        "weights": weights_hash(model),
        "batch_size": folder.batch_size,
        "part_size": part_size,
        "text": list(texts.words),
    }


def _begin(path: Path, described: dict[str, Any]) -> None:
    """Make the folder, or check that it was begun with the same settings, and clear what a kill left behind."""
    path.mkdir(parents=True, exist_ok=True)
    state = path / STATE
    if not state.is_file():
        if any(path.iterdir()):
            raise ValueError(f"output must be a new or empty folder, or one that embed began, got {path}")
        write_json(state, described)
        return
    before = json.loads(state.read_text())
    for name, value in described.items():
        if before.get(name) != value:
            got = f"{before.get(name)!r} there, {value!r} now"
            raise ValueError(f"output {path} was begun with another {name}: {got}; name another folder")
    for partial in partials(path):
        partial.unlink(missing_ok=True)


def _write_npz(path: Path, names: list[str], rows: np.ndarray, texts: Texts) -> None:
    columns = {"path": np.array(names), "image": rows}
    if texts.words:
        columns |= {"text": np.array(texts.words), "text_embedding": texts.rows, "similarity": rows @ texts.rows.T}
    with path.open("wb") as file:
        np.savez(file, **columns)  # type: ignore[arg-type]


def _write_parquet(path: Path, names: list[str], rows: np.ndarray, texts: Texts) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    offsets = arrow.array(np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1])
    image = arrow.ListArray.from_arrays(offsets, arrow.array(rows.reshape(-1)))
    readable = [name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in names]
    columns = {"path": arrow.array(readable, arrow.string()), "image": image}
    similarities = zip(texts.words, texts.rows @ rows.T, strict=True)
    columns |= {f"similarity: {word}": arrow.array(similarity) for word, similarity in similarities}
    parquet.write_table(arrow.table(columns), path)


def _length(part: Path) -> int:
    import pyarrow.parquet as parquet

    try:
        return parquet.read_metadata(part).num_rows
    except (OSError, ValueError) as error:
        raise ValueError(
            f"output: {part} is not a part that embed wrote: {error}; remove it to write it again"
        ) from None
