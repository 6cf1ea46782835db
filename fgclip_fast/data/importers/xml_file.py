"""Read XML files in flat memory; one with a document type is refused, since that can define entities without end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from fgclip_fast.data.causes import NOT_XML, BadRecord

_PIECE = 2**16  # bytes read at a time


def elements(file: Path, tag: str) -> Iterator[Element]:
    """Read the elements of a name one by one; each is complete, and then forgotten.

    Raises:
        BadRecord: the file cannot be read as XML, or has a document type.
    """
    tree = _Tree(tag)
    parser = XMLParser(target=tree)
    with file.open("rb") as opened:
        piece = b" "
        while piece:
            piece = opened.read(_PIECE)
            try:
                parser.feed(piece) if piece else parser.close()
            except ParseError as error:
                yield from tree.taken()  # those before the error
                raise BadRecord(NOT_XML, str(error)) from None
            yield from tree.taken()


class _Tree(TreeBuilder):
    """Builds elements of one name; all others are forgotten at their end."""

    def __init__(self, tag: str) -> None:
        super().__init__()
        self._tag = tag
        self._open: list[Element] = []
        self._done: list[Element] = []

    def doctype(self, *_: object) -> None:
        raise BadRecord(NOT_XML, "a document type (<!DOCTYPE …>) is not read, since it can define entities")

    def start(self, tag: Any, attributes: Any, /) -> Element:
        element = super().start(tag, attributes)
        self._open.append(element)
        return element

    def end(self, tag: Any, /) -> Element:
        element = super().end(tag)
        self._open.pop()
        inside = any(parent.tag == self._tag for parent in self._open)
        if not inside:
            if element.tag == self._tag:
                self._done.append(element)
            if self._open:
                self._open[-1].remove(element)
        return element

    def taken(self) -> list[Element]:
        """The elements that ended since the last call."""
        done, self._done = self._done, []
        return done
