"""Read sets of images and captions in the layouts in which they are published.

The layout is recognised by content, not by name. Each has a protocol: the images and captions that are asked, and the
text path. Captions are taken as they are written, without a prompt; spaces at their ends are removed.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fgclip_fast.evaluation import caption_lines
from fgclip_fast.model.fgclip import Kind

IMAGE_FIELDS = ("image", "filename", "image_file", "file_name", "filepath", "image_path", "img_path", "path")
"""Fields of a record that may name its image, by precedence."""
TEXT_FIELDS = ("caption", "captions", "text", "description", "title")
"""Fields that may hold its captions."""
SHARE_TEST = 1000
"""Records of ShareGPT4V's file that are the test set, its first."""
CAPTIONS = 5
"""Captions of an image of COCO that are used, its first."""

Rows = Iterable[tuple[Any, Any]]
"""(image, caption or captions), unchecked."""


class Pairs(NamedTuple):
    """Images and their captions."""

    protocol: str
    """The images and captions that are asked."""
    kind: Kind
    """The text path."""
    captions: dict[str, list[str]]
    """Image, as the file names it → its captions."""


def read(path: Path, skipped: Counter[str]) -> Pairs:
    """Read a set of images and captions.

    Args:
        path: a file, or the folder of Urban1k or DCI.
        skipped: counts, by cause, the records that cannot be used.

    Raises:
        ValueError: the content has no known layout.
        OSError: the file does not exist or cannot be read.
    """
    protocol, kind, rows = _folder(path, skipped) if path.is_dir() else _file(path, skipped)
    captions: dict[str, list[str]] = {}
    for image, texts in rows:
        own = [texts] if isinstance(texts, str) else texts
        if not isinstance(image, str) or not image:
            skipped["record without an image"] += 1
        elif not isinstance(own, list) or not own or not all(isinstance(text, str) and text.strip() for text in own):
            skipped["record without a caption"] += 1
        else:
            captions.setdefault(image, []).extend(text.strip() for text in own)
    return Pairs(protocol, kind, captions)


def _folder(path: Path, skipped: Counter[str]) -> tuple[str, Kind, Rows]:
    images, captions = path / "image", path / "caption"
    if images.is_dir() and captions.is_dir():
        return "urban1k: first line of each caption file, long text path", "long", _urban1k(images, captions, skipped)
    annotations = sorted((path / "annotations" if (path / "annotations").is_dir() else path).glob("*.json"))
    if annotations and "extra_caption" in annotations[0].read_text(encoding="utf-8", errors="replace"):
        protocol = "dci, all images: extra_caption, long text path"
        return protocol, "long", _dci(annotations, skipped)
    raise ValueError(
        f"data: {path} must hold image/ and caption/ (Urban1k) or JSON files with extra_caption (DCI), it has neither"
    )


def _urban1k(images: Path, captions: Path, skipped: Counter[str]) -> Iterator[tuple[Any, Any]]:
    by_stem = {image.stem: image.name for image in sorted(images.iterdir())}
    for caption in sorted(captions.glob("*.txt")):
        lines = caption.read_text(encoding="utf-8", errors="replace").splitlines()
        if caption.stem not in by_stem:
            skipped["caption without an image"] += 1
        else:
            yield f"image/{by_stem[caption.stem]}", lines[0] if lines else None


def _dci(files: Iterable[Path], skipped: Counter[str]) -> Iterator[tuple[Any, Any]]:
    for file in files:
        try:
            record = json.loads(file.read_bytes())
            yield record.get("image"), record.get("extra_caption")
        except (ValueError, AttributeError, RecursionError):
            skipped["malformed file"] += 1


def _file(path: Path, skipped: Counter[str]) -> tuple[str, Kind, Rows]:
    if path.suffix.lower() in (".csv", ".tsv"):
        return _pairs_protocol(path), "short", _table(path)
    content = path.read_bytes()
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return _lines(path, content, skipped)
    if isinstance(whole, dict) and isinstance(whole.get("images"), list):
        return _coco(path, whole) if "annotations" in whole else _karpathy(path, whole)
    if isinstance(whole, dict) and path.suffix.lower() in (".jsonl", ".jsonlines"):
        whole = [whole]
    if not isinstance(whole, list):
        raise ValueError(f"data: {path} must hold a list of records, or COCO's or Karpathy's images, it has neither")
    if whole and isinstance(whole[0], dict) and "conversations" in whole[0]:
        protocol = f"sharegpt4v-1k: first {SHARE_TEST} records of the file, long text path"
        return protocol, "long", _share(whole[:SHARE_TEST])
    return _records(path, whole)


def _coco(path: Path, whole: dict[str, Any]) -> tuple[str, Kind, Rows]:
    if not whole["annotations"] or "caption" not in whole["annotations"][0]:
        raise ValueError(f"data: {path} must hold captions in its annotations, it has none (an instances file?)")
    captions: dict[Any, list[Any]] = {}
    for annotation in whole["annotations"]:
        captions.setdefault(annotation.get("image_id"), []).append(annotation.get("caption"))
    protocol = f"coco captions, all images of the file: first {CAPTIONS} captions, short text path"
    rows = ((image.get("file_name"), captions.get(image.get("id"), [])[:CAPTIONS]) for image in whole["images"])
    return protocol, "short", rows


def _karpathy(path: Path, whole: dict[str, Any]) -> tuple[str, Kind, Rows]:
    test = [image for image in whole["images"] if isinstance(image, dict) and image.get("split") == "test"]
    if not test:
        raise ValueError(f"data: {path} must hold images with split 'test' (Karpathy's layout), it has none")
    rows = (
        ("/".join(filter(None, (image.get("filepath"), image.get("filename")))),
         [sentence.get("raw") for sentence in image.get("sentences", [])[:CAPTIONS]])
        for image in test
    )  # fmt: skip
    return f"karpathy test split: first {CAPTIONS} captions, short text path", "short", rows


def _share(records: list[Any]) -> Iterator[tuple[Any, Any]]:
    for record in records:
        turns = record.get("conversations") if isinstance(record, dict) else None
        answer = turns[1].get("value") if isinstance(turns, list) and len(turns) > 1 else None
        yield record.get("image") if isinstance(record, dict) else None, answer


def _records(path: Path, records: list[Any]) -> tuple[str, Kind, Rows]:
    dicts = [record for record in records if isinstance(record, dict)]
    docci = bool(dicts) and {"split", "image_file", "description"} <= dicts[0].keys()
    if docci:
        records = [record for record in dicts if record["split"] == "test"]
    elif dicts and not (_first(dicts[0], IMAGE_FIELDS) and _first(dicts[0], TEXT_FIELDS)):
        raise ValueError(
            f"data: records of {path} must have an image ({', '.join(IMAGE_FIELDS)}) and a caption "
            f"({', '.join(TEXT_FIELDS)}), got {', '.join(dicts[0])}"
        )
    rows = (
        (record.get(_first(record, IMAGE_FIELDS)), record.get(_first(record, TEXT_FIELDS)))
        if isinstance(record, dict)
        else (None, None)
        for record in records
    )
    if docci:
        return "docci, split test: description, long text path", "long", rows
    return _pairs_protocol(path), "short", rows


def _table(path: Path) -> Iterator[tuple[Any, Any]]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        header = reader.fieldnames or ()
        image, text = _first(header, IMAGE_FIELDS), _first(header, TEXT_FIELDS)
        if not image or not text:
            raise ValueError(
                f"data: {path} must have columns for an image ({', '.join(IMAGE_FIELDS)}) and a caption "
                f"({', '.join(TEXT_FIELDS)}), got {', '.join(header) or 'none'}"
            )
        for row in reader:
            yield row[image], row[text]


def _lines(path: Path, content: bytes, skipped: Counter[str]) -> tuple[str, Kind, Rows]:
    """JSON lines, or lines of ``name.jpg#0<TAB>text``, not necessarily grouped by image."""
    lines = [line for line in content.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    if lines and caption_lines.known(lines[0]):
        protocol, rows = caption_lines.read(path, lines)
        return protocol, "short", rows
    if not lines or not lines[0].lstrip().startswith(b"{"):
        raise ValueError(
            f"data: {path} must be JSON, JSON lines, CSV, TSV or lines of NAME#N and a text, it is neither"
        )
    records: list[Any] = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError):
            skipped["malformed line"] += 1
    return _records(path, records)


def _pairs_protocol(path: Path) -> str:
    return f"pairs of {path.name}: all images, all captions, short text path"


def _first(names: Iterable[str], known: Iterable[str]) -> str:
    """The first of the known names that is among ``names``; empty without one."""
    given = set(names)
    return next((name for name in known if name in given), "")
