"""Read JSON files of any length in flat memory: lines, one list, or one object whose values are long lists."""

import codecs
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fgclip_fast.data.causes import NOT_JSON, NOT_UTF8

Kind = Literal["list", "object", "lines"]
_PIECE = 2**20  # characters read at a time
_SPACE = " \t\r\n"


class Line(NamedTuple):
    """An entry of a file: its value, or the cause and detail of why it cannot be read."""

    number: int
    """Of its line, or of the entry in a list; from 1."""
    value: Any
    bad: tuple[str, str] | None = None


def encoding(beginning: bytes) -> str:
    """The encoding of a text file, by its byte order mark; UTF-8 without one."""
    if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


def kind(beginning: bytes) -> Kind | None:
    """The layout of a JSON file, by its first bytes; None if they are not JSON."""
    text = beginning.decode(encoding(beginning), "ignore").lstrip()
    if not text.startswith(("[", "{")):
        return None
    if text.startswith("["):
        return "list"
    first, _, rest = text.partition("\n")
    try:
        json.loads(first)
    except ValueError:
        # The first line of a file of lines may be broken; a second line that is a whole object tells.
        second = rest.partition("\n")[0].strip()
        return "lines" if second.startswith("{") and second.endswith("}") and len(second) > 2 else "object"
    # One object in one line is a record, unless it is the whole of a file made of lists.
    keys = json.loads(first).keys()
    return "object" if not rest.strip() and {"images", "annotations"} & keys else "lines"


def lines(file: Path) -> Iterator[Line]:
    """Read JSON lines; a line that cannot be read comes with its cause."""
    with file.open("rb") as opened:
        code = encoding(opened.read(4))
        opened.seek(0)
        text: Iterable[bytes] = opened
        if code == "utf-16":
            text = (line.encode() for line in codecs.getreader(code)(opened, "replace"))
        for number, raw in enumerate(text, start=1):
            if raw.strip():
                yield _parsed(number, raw)


def _parsed(number: int, raw: bytes) -> Line:
    try:
        return Line(number, json.loads(raw.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        return Line(number, None, (NOT_UTF8, f"byte {error.start}"))
    except (ValueError, RecursionError) as error:
        return Line(number, None, (NOT_JSON, str(error)))


def entries(file: Path) -> Iterator[Line]:
    """Read the entries of a JSON list one by one.

    Raises:
        ValueError: the file is not a JSON list, or ends within it.
    """
    text = _Text(file)
    for i, value in enumerate(text.elements(), start=1):
        yield Line(i, value)


def members(file: Path) -> Iterator[tuple[str, Any]]:
    """Read a JSON object whose values are lists: each entry of each list, with its key; other values whole.

    Raises:
        ValueError: the file is not a JSON object, or ends within it.
    """
    text = _Text(file)
    text.expect("{")
    while text.peek() != "}":
        name = text.value()
        text.expect(":")
        if text.peek() == "[":
            yield from ((name, value) for value in text.elements())
        else:
            yield name, text.value()
        if text.peek() != ",":
            break
        text.expect(",")
    text.expect("}")


class _Text:
    """A text file of which only the part that is being parsed is held."""

    def __init__(self, file: Path) -> None:
        with file.open("rb") as opened:
            code = encoding(opened.read(4))
        self._file = file
        self._opened = file.open(encoding=code)
        self._held, self._at, self._passed = "", 0, 0
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            while self._at < len(self._held) and self._held[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._more(_PIECE):
                return ""

    def expect(self, character: str) -> None:
        """Pass a character that must come now."""
        found = self.peek()
        if found != character:
            raise self._error(f"{character!r} expected, got {found!r}" if found else "the file ends early")
        self._at += 1

    def elements(self) -> Iterator[Any]:
        """The elements of the list that begins here."""
        self.expect("[")
        while self.peek() != "]":
            yield self.value()
            if self.peek() != ",":
                break
            self.expect(",")
        self.expect("]")

    def value(self) -> Any:
        """The value that begins here."""
        self.peek()
        piece = _PIECE
        while True:
            try:
                value, end = self._decoder.raw_decode(self._held, self._at)
                # A number at the end of what is held may go on.
                if end < len(self._held) or not self._more(piece):
                    self._at = end
                    return value
            except RecursionError:
                raise self._error("nested too deeply") from None
            except ValueError as error:
                if not self._more(piece):
                    raise self._error(str(error)) from None
            piece *= 2  # so that a long value is not parsed often

    def _more(self, characters: int) -> bool:
        try:
            read = self._opened.read(characters)
        except UnicodeDecodeError as error:
            raise ValueError(f"data import: {self._file}: {NOT_UTF8}: {error.reason}") from None
        if not read:
            return False
        self._passed += self._at
        self._held, self._at = self._held[self._at :] + read, 0
        return True

    def _error(self, message: str) -> ValueError:
        return ValueError(f"data import: {self._file}: {NOT_JSON} after character {self._passed + self._at}: {message}")
