"""Turns values into HTML text. Everything that a run holds, captions above all, is untrusted and escaped here."""

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def escape(value: object) -> str:
    """Escape a value for use as text of an element or in a quoted attribute."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", str(value)), quote=True)


def caption(value: object) -> str:
    """A caption in a ``<bdi>`` element, so that its direction marks cannot reorder the text around it."""
    return f'<bdi class="caption">{escape(value)}</bdi>'


def inline_json(name: str, value: Any) -> str:
    """A ``<script>`` element with data. Its JSON holds no ``<``, so no text in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{escape(name)}">{text}</script>'


def data_uri(encoded: bytes, kind: str = "image/jpeg") -> str:
    """A ``data:`` address that holds a file, so that the page needs no file beside it."""
    return f"data:{kind};base64,{base64.b64encode(encoded).decode()}"


def facts(pairs: Mapping[str, object]) -> str:
    """A definition list of names and values, without values that are None."""
    items = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs.items() if v is not None)
    return f'<dl class="facts">{"".join(items)}</dl>'


def table(head: Sequence[str], rows: Iterable[Sequence[object]], title: str) -> str:
    """A table of plain values; the first column names the row."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll"><table><caption class="hidden">{escape(title)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def details(title: str, inside: str) -> str:
    """A collapsed ``<details>`` block."""
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"


def section(name: str, title: str, *parts: str) -> str:
    """A part of the page under its heading; empty if all its parts are empty."""
    inside = "\n".join(filter(None, parts))
    if not inside:
        return ""
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>\n{inside}\n</section>\n'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text; ``kind`` is its CSS class."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent, as people read it."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours, as people read it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
