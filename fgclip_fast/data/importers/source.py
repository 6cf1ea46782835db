"""The vocabulary of importing: files of a source, the records read from them, and where their images lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fgclip_fast.data.causes import NO_IMAGE, BadRecord
from fgclip_fast.data.copies import held
from fgclip_fast.data.remote import note_path

HEAD = 2**16
"""Bytes of a file's beginning by which formats recognise it."""
TRIED = 20
"""Files of a kind at whose beginnings a format looks to recognise it."""
SPLITS = ("train", "val", "test")
"""Names of the splits, from the least to the most held out; a number stands for one in arrays, -1 for none."""
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}


class Image(Protocol):
    """A place where an encoded image lies; it is read in a worker process."""

    def read(self) -> bytes:
        """Return the image file's bytes.

        Raises:
            BadRecord: they cannot be read.
        """


class ImageFile(NamedTuple):
    """An image in a file of its own: the first that exists of several possible paths in a folder."""

    folder: Path
    names: tuple[str, ...]

    def read(self) -> bytes:
        """Return the image file's bytes."""
        missing = None
        for name in self.names:
            try:
                return (self.folder / name).read_bytes()
            except (OSError, ValueError) as error:  # ValueError: a path with a null byte
                missing = missing or error
        raise BadRecord(NO_IMAGE, str(missing))


class FilePart(NamedTuple):
    """An image inside another file, such as a tar."""

    path: Path
    start: int
    size: int

    def read(self) -> bytes:
        """Return the image file's bytes."""
        with held(self.path), self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


class SourceRecord(NamedTuple):
    """One image with its texts and regions, as a source states them."""

    key: str
    """Name of the record: the path of its image as the source writes it, else a number."""
    file: str
    """The source file that it came from."""
    line: int
    """Its line in the file, or its number there where the format has no lines; both from 1."""
    image: Image | None
    fields: Any
    """The record as :mod:`fgclip_fast.data.records` reads it, but with boxes in the numbers of the source."""
    size: tuple[float, float] | None = None
    """Width and height of the image that the source states, pixels."""
    bad: tuple[str, str] | None = None
    """Cause and detail if the source's entry cannot be read."""
    split: str | None = None
    """``train``, ``val`` or ``test`` where the source says so."""


@dataclass(frozen=True)
class Source:
    """The files given to the importer.

    Attributes:
        paths: files and folders, as the user names them.
    """

    paths: tuple[Path, ...]

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """All files, those of folders in order of their path; a ``.txt`` stands for the files that it lists."""
        found: list[Path] = []
        for path in self.paths:
            if not path.exists() and not note_path(path).exists():
                raise FileNotFoundError(f"data import: source {path} does not exist")
            found += _inside(path) if path.is_dir() else _listed(path)
        return tuple(found)

    def ending(self, *suffixes: str) -> tuple[Path, ...]:
        """Files whose name ends in one of some suffixes, in lower or upper case."""
        return tuple(file for file in self.files if file.name.lower().endswith(suffixes))

    @property
    def folder(self) -> Path:
        """The folder of the first path: where images lie if the user names no other."""
        return self.paths[0] if self.paths[0].is_dir() else self.paths[0].parent


@dataclass(frozen=True)
class Options:
    """The arguments of the import that readers of a format may need.

    Attributes:
        images: folder that the paths of images start from; None: the folder of the source.
        image_field: name of the field or column with the image's path; None: the usual names.
        text_field: name of the field or column of an annotation with its text; None: the usual names.
        template: text of a region that has only a category; ``{}`` is the category's name.
    """

    images: Path | None = None
    image_field: str | None = None
    text_field: str | None = None
    template: str = "{}"


def image_file(options: Options, beside: Path, *names: str) -> ImageFile:
    """The image of one of some relative paths, in the images folder, else in the folder of the source file."""
    folder = options.images if options.images is not None else beside.parent
    return ImageFile(folder, names)


def captioned(captions: Sequence[str]) -> dict[str, Any]:
    """The fields of some captions: the first is the short one, all of them joined are the long one."""
    kept = [caption.strip() for caption in captions if caption.strip()]
    if len(kept) < 2:
        return {"short_caption": kept[0]} if kept else {}
    return {"short_caption": kept[0], "caption": " ".join(kept), "captions": kept}


def region(box: Sequence[Any], text: str, **more: Any) -> dict[str, Any]:
    """A region in the fields of a record."""
    return {"bbox": list(box), "short_expr": text, **more}


def described(box: Sequence[Any], texts: Sequence[str]) -> dict[str, Any]:
    """A region with several texts: the shortest, the longest, and all of them."""
    distinct = dict.fromkeys(text.strip() for text in texts if text.strip())
    by_length = sorted(distinct, key=lambda text: len(text.split()))
    if len(by_length) < 2:
        return region(box, "".join(by_length))
    return region(box, by_length[0], long_expr=by_length[-1], expressions=by_length)


def class_text(name: str, options: Options) -> str:
    """The text of a region that has only a class."""
    name = name.replace("_", " ").strip()
    return options.template.format(name) if name else ""


def around(points: Sequence[tuple[Any, Any]]) -> list[Any]:
    """The box x1, y1, x2, y2 around some points; if one is not of numbers, all that was given, for the checks."""
    given = [side for point in points for side in point]
    if not given or not all(isinstance(side, int | float) for side in given):
        return given
    return [limit(given[axis::2]) for limit in (min, max) for axis in (0, 1)]


def split_of(name: str | None) -> str | None:
    """``train``, ``val`` or ``test`` by the name that a source has for it; None: another name."""
    word = (name or "").lower()
    return "test" if word.startswith("test") else _SPLITS.get(word)


@lru_cache(maxsize=16)
def splits_by_lists(folder: Path) -> dict[str, str]:
    """Read ``train.txt``, ``val.txt`` and ``test.txt`` of a folder, with an image at the start of each line.

    Returns:
        Image, as the lists name it, to its split; empty without such files.
    """
    lists = (folder / f"{name}.txt" for name in SPLITS)
    rows = ((file.stem, line.split()) for file in lists if file.is_file() for line in _lines(file))
    return {words[0]: split for split, words in rows if words}


def _lines(file: Path) -> list[str]:
    return file.read_text("utf-8", "replace").splitlines()


def head(file: Path) -> bytes:
    """The first bytes of a file."""
    return _head(file)


@lru_cache(maxsize=1024)
def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(HEAD)


def stated_size(fields: Mapping[str, Any]) -> tuple[float, float] | None:
    """Width and height in the fields of those names, if both are positive numbers."""
    size = fields.get("width"), fields.get("height")
    if all(isinstance(side, int | float) and not isinstance(side, bool) and side > 0 for side in size):
        return size  # type: ignore[return-value]
    return None


def _inside(folder: Path) -> list[Path]:
    hidden = lambda path: any(part.startswith(".") for part in path.relative_to(folder).parts)  # noqa: E731
    return sorted(path for path in folder.rglob("*") if path.is_file() and not hidden(path))


def _listed(path: Path) -> list[Path]:
    if path.suffix.lower() != ".txt":
        return [path]
    lines = [line.strip() for line in path.read_text("utf-8-sig", "replace").splitlines() if line.strip()]
    files = [path.parent / line for line in lines]
    if not files or not all(file.suffix.lower().startswith(".json") for file in files):
        return [path]  # a .txt that is not a list of files
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise FileNotFoundError(f"data import: {path} lists {missing}, which does not exist")
    return files
