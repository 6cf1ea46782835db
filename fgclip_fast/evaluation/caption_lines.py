"""Lines of an image, a number and a caption: Flickr30k's, COCO-CN's, Flickr30k-CNA's.

Flickr30k's begin ``name.jpg#0``; the others name the image without ``.jpg``. The lines of an image need not follow
each other, and it may have any number of them.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

COCO_CN_TEST = "coco-cn_test.txt"
"""COCO-CN's list of its test images; beside the captions it limits them to these."""
_LINE = re.compile(r"^(.+?)#(?:[a-z0-9]+#)?\d+\s+(.+)$")
_COCO_CN = re.compile(r"COCO_(?:train|val)2014_\d{12}#")
_FLICKR_CN = re.compile(r"\d+#([a-z0-9]+#)?\d+\s")


def known(line: bytes) -> bool:
    """Whether a line is of this kind."""
    return _LINE.match(line.decode("utf-8", "replace")) is not None


def read(path: Path, lines: Sequence[bytes]) -> tuple[str, Iterator[tuple[str, str | None]]]:
    """Read the lines of a file.

    Args:
        path: the file.
        lines: what it holds, at least one line.

    Returns:
        The protocol, and image and caption of each line; of a malformed line an empty name.

    Raises:
        OSError: the list of test images beside the file cannot be read.
    """
    first = lines[0].decode("utf-8", "replace")
    asked = "all captions, short text path"
    if _COCO_CN.match(first):
        listed = path.parent / COCO_CN_TEST
        if not listed.is_file():
            return f"coco-cn lines of {path.name}, all images: {asked}", _rows(lines)
        test = {_with_ending(name) for name in listed.read_text(encoding="utf-8").split()}
        kept = ((image, text) for image, text in _rows(lines) if not image or image in test)
        return f"coco-cn lines of {path.name}, images of {COCO_CN_TEST}: {asked}", kept
    if found := _FLICKR_CN.match(first):
        return f"flickr30k-{'cn' if found[1] else 'cna'} lines of {path.name}, all images: {asked}", _rows(lines)
    return f"token file, all images: {asked}", _rows(lines)


def _rows(lines: Sequence[bytes]) -> Iterator[tuple[str, str | None]]:
    for line in lines:
        match = _LINE.match(line.decode("utf-8", "replace"))
        yield (_with_ending(match[1]), match[2]) if match else ("", None)


def _with_ending(name: str) -> str:
    return name if Path(name).suffix else f"{name}.jpg"
