"""Figures as tables on a terminal: of one model, or of two side by side."""

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from fgclip_fast import figures_rows
from fgclip_fast.command import replace_unprintable


def show(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Print figures: one table for all suites of top-1 alone, and one for each other suite, with its protocol."""
    replace_unprintable()  # for who calls train() from Python, too
    console = Console()
    beside = {(cell.suite, cell.figure): figures_rows.published(cell) for cell in figures_rows.cells(figures)}
    more = ["published"] if any(beside.values()) else []
    table = Table("suite", "top-1", "95 %", *more, "chance", "questions", "skipped")
    for name, f in figures.items():
        if _of_one_figure(f):
            low, high = map(_percent, f["interval"])
            given = [beside.get((name, "top1"), "")] * len(more)
            cells = _percent(f["top1"]), f"{low} – {high}", *given, _percent(f["chance"]), str(f["questions"])
            table.add_row(name, *cells, ", ".join(f"{n} {cause}" for cause, n in f["skipped"].items()))
    if table.row_count:
        console.print(table)
    for name, f in figures.items():
        if not _of_one_figure(f):
            own = Table(name, "value", *(["published, %"] if "published" in f else []))
            for key, value in f.items():
                given = [beside.get((name, key), "")] * ("published" in f)
                if key == "skipped":
                    own.add_row(key, ", ".join(f"{n} {cause}" for cause, n in value.items()) or "0")
                elif not isinstance(value, list | dict):
                    own.add_row(key, _number(value) if isinstance(value, float) else str(value), *given)
            console.print(own)
            # As a caption of the table it would be broken to the table's width.
            if protocol := f.get("of", {}).get("protocol"):
                console.print(protocol, markup=False, highlight=False, soft_wrap=True)


def show_comparison(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the figures of two models side by side: one table for all suites of one figure, and a verdict line each."""
    replace_unprintable()  # for who calls train() from Python, too
    console = Console()
    compared = {name: f["against"] for name, f in figures.items() if "against" in f}
    tables: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, against in compared.items():
        several = len(against["differences"]) > 1
        for figure, d in against["differences"].items():
            tables.setdefault(name if several else "suite", []).append((figure if several else name, d))
    for title, rows in tables.items():
        table = Table(title, "model", "against", "difference (95 %)", "shown")
        for row, d in rows:
            low, high = (f"{100 * end:+.1f}" for end in d["interval"])
            shown = d["verdict"] if d["verdict"] in ("better", "worse") else "–"
            points = f"{100 * d['difference']:+.1f} ({low} … {high})"
            table.add_row(row, _percent(d["model"]), _percent(d["against"]), points, shown)
        console.print(table)
    for name, against in compared.items():
        by = next(iter(against["differences"].items()), None)
        reason = f"by {by[0]} over {by[1]['images']} images" if by else "no image was asked about by both"
        console.print(f"{name}: {against['verdict']} ({reason})", markup=False, soft_wrap=True)


def show_curves(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the shares of right answers of weights between two models, where these were asked for."""
    curves = {name: f["against"]["curve"] for name, f in figures.items() if "curve" in f.get("against", {})}
    if not curves:
        return
    shares = next(iter(curves.values()))["shares"]
    table = Table("share of the model's weights", *(f"{share:g}" for share in shares))
    for name, curve in curves.items():
        for figure, values in curve["figures"].items():
            table.add_row(f"{name} {figure}", *("–" if value is None else _percent(value) for value in values))
    Console().print(table)


def _of_one_figure(figures: Mapping[str, Any]) -> bool:
    return "top1" in figures and not any(name.startswith(("top1_", "top1 ", "top5")) for name in figures)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.1%}"
