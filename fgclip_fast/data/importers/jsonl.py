"""Make shards from a list of records and a folder of images: a user's own JSON lines, or FineHARD's files.

A record is an object with the path of its image (``image``, ``f_path``, ``img_path`` or ``file_name``) and the fields
that :mod:`fgclip_fast.data.records` reads: ``short_caption``, ``caption`` (the long one), ``bbox_info``.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from fgclip_fast.data.causes import BAD, NO_IMAGE, NOT_JSON, WRONG_TYPE, BadRecord
from fgclip_fast.data.decode import decode, sides
from fgclip_fast.data.records import IMAGE_NAMES, Record, parse, parse_json
from fgclip_fast.data.shards import ShardWriter
from fgclip_fast.inputs.boxes import BadBox, corners, fractions, numbers

Boxes = Literal["xyxy-pixel", "xyxy-fraction", "xywh-pixel"]
"""Meaning of a box's four numbers: corners or corner and size, pixels or fractions of the image."""
_PATH_FIELDS = ("image", "f_path", "img_path", "file_name")
_RELEASED_PREFIX = "grit-20m/data-12m/"  # FineHARD's paths begin so, though its downloads lack these folders
_CHECKED_SIZE = 64  # side to which images are decoded to see that they can be

log = logging.getLogger(__name__)


def write_shards(
    source: Path, images: Path, output: Path, *, boxes: Boxes, val: float = 0.0, shard_size: int = 1000
) -> tuple[Counter[str], Counter[str]]:
    """Write ``output/train-00000.tar`` and so on, and ``output/val-00000.tar`` and so on for validation.

    Args:
        source: JSON lines or a JSON list; a folder of such files; or a ``.txt`` that lists them.
        images: the folder that the records' paths start from.
        output: a folder without shards.
        boxes: the meaning of a box's four numbers.
        val: share of the images used for validation. A digest of the path decides: an image never changes sides.
        shard_size: records of a shard.

    Returns:
        The number of records of each split; and the number of refused records, dropped regions and filled texts by
        cause. The log names each refused record.

    Raises:
        ValueError: an argument is wrong, or no record is usable.
    """
    _check_arguments(images, output, val, shard_size)
    written: Counter[str] = Counter(train=0, val=0)
    causes: Counter[str] = Counter()
    with _Split(output, "train", shard_size) as train, _Split(output, "val", shard_size) as validation:
        for name, raw in _lines(source):
            try:
                path, encoded, fields, record = _checked(raw, images, boxes)
            except BadRecord as bad:
                causes[bad.cause] += 1
                log.warning("%s: %s; refused", name, bad)
                continue
            causes.update(defect.cause for defect in record.defects)
            split = validation if _share(path) < val else train
            split.write(encoded, path, fields)
            written[split.name] += 1
    if not any(written.values()):
        raise _nothing_usable(source, images, causes)
    return written, causes


def _check_arguments(images: Path, output: Path, val: float, shard_size: int) -> None:
    if not images.is_dir():
        raise ValueError(f"data jsonl: --images must be a folder, got {images}, which is not a folder")
    existing = next(path for path in (output, *output.parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"data jsonl: --output must be a new folder, got {output}, but {existing} is a file")
    if any(output.glob("*.tar")):
        raise ValueError(f"data jsonl: --output must hold no shards, got {output}, which does; choose another folder")
    if not 0 <= val <= 1:  # nan too
        raise ValueError(f"data jsonl: --val must be a share of the images, 0 to 1, got {val}")
    if shard_size < 1:
        raise ValueError(f"data jsonl: --shard-size must be at least 1 record, got {shard_size}")


def _nothing_usable(source: Path, images: Path, causes: Counter[str]) -> ValueError:
    refused = ", ".join(f"{n} x {cause}" for cause, n in causes.most_common() if cause in BAD)
    if not refused:
        return ValueError(f"data jsonl: {source} holds no record")
    hint = "; each line must be a whole record, or the file one JSON list" if NOT_JSON in causes else ""
    return ValueError(f"data jsonl: no record of {source} is usable with the images of {images}: {refused}{hint}")


def _checked(raw: bytes | Mapping, images: Path, boxes: Boxes) -> tuple[str, bytes, dict[str, Any], Record]:
    """Check that training can use a record; return its path, image file, fields with boxes as fractions, and Record."""
    fields = dict(_mapping(parse_json(raw) if isinstance(raw, bytes) else raw))
    path = next((fields[name] for name in _PATH_FIELDS if isinstance(fields.get(name), str)), None)
    if path is None:
        raise BadRecord(NO_IMAGE, f"a record must have a path in {', '.join(_PATH_FIELDS[:-1])} or {_PATH_FIELDS[-1]}")
    path = path.removeprefix(_RELEASED_PREFIX)
    try:
        encoded = (images / path).read_bytes()
    except (OSError, ValueError) as error:
        raise BadRecord(NO_IMAGE, str(error)) from None
    decode(encoded, _CHECKED_SIZE)
    if boxes != "xyxy-fraction" and isinstance(fields.get("bbox_info"), list):
        width, height = sides(encoded)
        fields["bbox_info"] = [_as_fractions(region, boxes, width, height) for region in fields["bbox_info"]]
    return path, encoded, fields, parse(fields)


def _mapping(fields: Any) -> Mapping[str, Any]:
    if not isinstance(fields, Mapping):
        raise BadRecord(WRONG_TYPE, f"a record must be an object, got {type(fields).__name__}")
    return fields


def _as_fractions(region: Any, boxes: Boxes, width: int, height: int) -> Any:
    """Convert a region's box to fractions; if it is not four numbers, leave it to the checks of the record."""
    if not isinstance(region, Mapping):
        return region
    try:
        box = numbers(region.get("bbox"))
        xyxy = corners(box) if boxes == "xywh-pixel" else box
        return {**region, "bbox": list(fractions(xyxy, width, height))}
    except (BadBox, OverflowError):  # OverflowError: an integer beyond fp64
        return region


def _share(path: str) -> float:
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _lines(source: Path) -> Iterator[tuple[str, bytes | Mapping]]:
    """Yield each record of the source, with its name for messages."""
    for file in _files(source):
        with file.open("rb") as lines:
            if lines.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
                yield from ((f"{file.name}, record {i}", entry) for i, entry in enumerate(_list(file)))
                continue
            lines.seek(0)
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{file.name}, line {number}", line


def _list(file: Path) -> list:
    try:
        return parse_json(file.read_bytes())
    except BadRecord as bad:
        raise ValueError(f"data jsonl: {file}: {bad}") from None


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        files = sorted([*source.glob("*.json"), *source.glob("*.jsonl")])
    elif source.suffix == ".txt":
        files = [source.parent / line for line in source.read_text().splitlines() if line.strip()]
    else:
        files = [source]
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        raise FileNotFoundError(
            f"data jsonl: {missing[0] if missing else source} does not exist or holds no list of records"
        )
    return files


class _Split:
    """Writes shards ``name-00000.tar``, ``name-00001.tar``, …, each of up to ``shard_size`` records."""

    def __init__(self, folder: Path, name: str, shard_size: int) -> None:
        self.name = name
        self._folder, self._shard_size = folder, shard_size
        self._records = 0
        self._shard: ShardWriter | None = None

    def write(self, encoded: bytes, path: str, fields: Mapping[str, Any]) -> None:
        """Append a record; its image keeps its format."""
        if self._records % self._shard_size == 0:
            self.__exit__(None, None, None)
            shard = self._folder / f"{self.name}-{self._records // self._shard_size:05d}.tar"
            self._shard = ShardWriter(shard)
        assert self._shard is not None
        kind = "jpg" if encoded[:2] == b"\xff\xd8" else Path(path).suffix.lower().strip(".") or "jpg"
        parts = {kind if kind in IMAGE_NAMES else "jpg": encoded, "json": json.dumps(fields).encode()}
        self._shard.write(f"{self._records:08d}", **parts)
        self._records += 1

    def __enter__(self) -> "_Split":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._shard is not None:
            self._shard.__exit__(*error)
