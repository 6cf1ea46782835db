"""What the command leaves: ``gpu.json`` and the same as tables in ``gpu.md``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.sections import Section
from fgclip_fast.files.whole_file import write_json, write_whole

Row = dict[str, Any]
# Column of a row -> the case of the section "ceilings" that bounds it, and its column there.
BOUNDS = {"TFLOP/s": ("product", "TFLOP/s"), "GB/s": ("copy", "GB/s")}


def read_rows(file: Path) -> list[Row]:
    """The rows that a section has written so far; a last one that was cut short is left out."""
    rows = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def write(folder: Path, sections: Sequence[Section], record: dict[str, Any]) -> None:
    """Write both files; sections that have not run yet are told as such in the Markdown."""
    done = record["sections"]
    for name, section in done.items():
        if name != "ceilings":
            section["rows"] = with_shares(section["rows"], done.get("ceilings", {}).get("rows", []))
    write_json(folder / "gpu.json", record)
    parts = [_head(record)]
    for section in sections:
        parts.append(f"## {section.title}\n\n{_body(done.get(section.name))}")
    write_whole(folder / "gpu.md", "\n\n".join(parts) + "\n")


def with_shares(rows: list[Row], ceilings: list[Row]) -> list[Row]:
    """Rows with the share of the ceiling after each rate that has one."""
    attained = {row["case"]: row for row in ceilings}
    shared = []
    for row in rows:
        new: Row = {}
        for column, value in row.items():
            new[column] = value
            case, of = BOUNDS.get(column, ("", ""))
            most = attained.get(case, {}).get(of)
            if most and value is not None:
                new[f"share of the {case}"] = value / most
        shared.append(new)
    return shared


def _head(record: dict[str, Any]) -> str:
    warning = "\n\nA rehearsal with tiny sizes on the CPU: its times mean nothing." if record["rehearsal"] else ""
    return f"# GPU report\n\n`{record['command']}`, {record['date']}{warning}"


def _body(section: dict[str, Any] | None) -> str:
    if section is None:
        return "Not run yet."
    told = f"{section['outcome']}, {section['seconds']:.0f} s"
    if section["outcome"] != "ok" and section["log"]:
        told += f"; the end of its log:\n\n```\n{section['log']}\n```"
    return f"{told}\n\n{table(section['rows'])}" if section["rows"] else told


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table, with a column for each key in the order in which they first occur."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(_shown(row.get(column)) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value).replace("|", "\\|").replace("\n", " ")
