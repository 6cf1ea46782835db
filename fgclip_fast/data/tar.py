"""The headers of a tar file: its regular files with their places, up to the first header that is damaged."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

BLOCK = 512
"""Bytes of a tar header, and the unit of padding."""
_FILES = (b"0", b"\0", b"7")  # types of a regular file; writers use all three
_LONG_NAMES = (b"x", b"L")  # pax and GNU: the content of such a member names the next one
_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)")


class Member(NamedTuple):
    """One file in a tar: ``[start, after)`` with its headers and padding, ``[body, body + size)`` its content."""

    name: str
    start: int
    body: int
    size: int
    after: int


class Damaged(ValueError):
    """A tar that cannot be read to its end; ``at`` is the first byte of the member that fails."""

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(f"byte {at}: {reason}")
        self.at = at


def members(read: Callable[[int, int], bytes], end: int) -> Iterator[Member]:
    """Yield the regular files of a tar of ``end`` bytes; ``read(at, size)`` returns some of them."""
    start, at, long_name, long_size = 0, 0, None, None
    while at < end:
        header = read(at, BLOCK)
        if header == bytes(BLOCK):
            return  # the end-of-archive mark
        size, kind = _checked_size(header, at), header[156:157]
        if kind not in _LONG_NAMES and long_size is not None:
            size = long_size
        body, after = at + BLOCK, at + BLOCK + -(-size // BLOCK) * BLOCK
        if body + size > end:
            raise Damaged(start, f"a member of {size} bytes, but {end - body} are left")
        if kind in _LONG_NAMES:
            content = read(body, size)
            long_name = _long_name(kind, content) or long_name
            if kind == b"x" and (told := re.search(rb"(?:^|\n)\d+ size=(\d+)\n", content)):
                long_size = int(told[1])  # a file of 8 GiB or more; its own header then holds any number
            at = after
            continue
        if kind in _FILES:
            yield Member(long_name or _name(header), start, body, size, after)
        start, at, long_name, long_size = after, after, None, None


def split(name: str) -> tuple[str | None, str]:
    """Split a name: ``./folder/000017.seg.png`` -> ``("folder/000017", "seg.png")``; key None if hidden or nameless."""
    match = _KEY.fullmatch(name.removeprefix("./"))
    return (match[1], match[2].lower()) if match else (None, "")


def _checked_size(header: bytes, at: int) -> int:
    if len(header) < BLOCK:
        raise Damaged(at, "the file ends within a header")
    try:
        if int(header[148:156].strip(b" \0") or b"0", 8) != sum(header[:148]) + 8 * 32 + sum(header[156:]):
            raise ValueError
        field = header[124:136]
        size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else int(field.strip(b" \0") or b"0", 8)
        if size < 0:
            raise ValueError
        return size
    except ValueError:
        raise Damaged(at, "not a tar header") from None


def _name(header: bytes) -> str:
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    whole = prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name
    return whole.decode("utf-8", "surrogateescape")


def _long_name(kind: bytes, body: bytes) -> str | None:
    if kind == b"L":
        return body.split(b"\0")[0].decode("utf-8", "surrogateescape")
    match = re.search(rb"(?:^|\n)\d+ path=([^\n]*)\n", body)
    return match[1].decode("utf-8", "surrogateescape") if match else None
