"""Text into HTML: everything that a run says is untrusted, captions above all."""

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def escape(value: object) -> str:
    """A value as text of an element or of a quoted attribute."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", str(value)), quote=True)


def caption(value: object) -> str:
    """A caption as an element of its own: marks of another writing direction do not leave it."""
    return f'<bdi class="caption">{escape(value)}</bdi>'


def inline_json(name: str, value: Any) -> str:
    """A data block that a script can read; no text in it can end the block, since it holds no ``<``."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{escape(name)}">{text}</script>'


def data_uri(encoded: bytes, kind: str = "image/jpeg") -> str:
    """A file's bytes as an address, so that the page needs no file beside it."""
    return f"data:{kind};base64,{base64.b64encode(encoded).decode()}"


def facts(pairs: Mapping[str, object]) -> str:
    """Names and values, as a definition list; values that are None are left out."""
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
    """Something that is there for those who ask for it."""
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"


def section(name: str, title: str, *parts: str) -> str:
    """One part of the page under its heading; empty parts make no section."""
    inside = "\n".join(filter(None, parts))
    if not inside:
        return ""
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>\n{inside}\n</section>\n'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain words."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def percent(share: float | None, digits: int = 1) -> str:
    """A share as people read it."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def span(seconds: float) -> str:
    """A length of time as people read it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
