"""Charts as HTML and SVG: labels keep the size of the page's text on every screen, lines stretch to its width."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fgclip_fast.report.html import details, escape, percent, table

POINTS = 240
"""Points of a drawn line, at most; a longer series is thinned to means of equal stretches."""


class Line(NamedTuple):
    """A named series of (step, value)."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str
    """CSS class: a … f."""


class Mark(NamedTuple):
    """A share on a row of :func:`shares`, with its 95 % interval if known."""

    value: float
    style: str
    interval: tuple[float, float] | None = None


def shares(
    rows: Sequence[tuple[str, Sequence[Mark]]], head: Sequence[str], cells: Sequence[Sequence[str]], kind: str = ""
) -> str:
    """A dot plot of shares in [0, 1] on a common axis, with columns of figures beside it.

    Args:
        rows: the name of each row and its dots.
        head: names of the columns with figures.
        cells: the figures of each row, one for each column.
        kind: CSS class of the table.
    """
    top = '<tr><th scope="col"><span class="hidden">Question</span></th>'
    top += f'<th class="axis" aria-hidden="true"><div>{_axis()}</div></th>'
    top += "".join(f'<th scope="col">{escape(name)}</th>' for name in head) + "</tr>"
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="track" aria-hidden="true"><div>{_marks(marks)}</div></td>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in figures)
        + "</tr>"
        for (name, marks), figures in zip(rows, cells, strict=True)
    )
    return f'<table class="shares {kind}"><thead>{top}</thead><tbody>{body}</tbody></table>'


def lines(title: str, series: Sequence[Line], *, log: bool = False, unit: str = "") -> str:
    """A line chart over steps, with a table of first, lowest, highest and last values.

    Args:
        title: caption of the chart.
        series: the lines; points that are not finite are left out.
        log: use a logarithmic axis.
        unit: written after the numbers of the axis.

    Returns:
        HTML; empty if no line has a finite point.
    """
    drawn = [line._replace(points=_thinned([p for p in line.points if math.isfinite(p[1])])) for line in series]
    drawn = [line for line in drawn if line.points]
    if not drawn:
        return ""
    ends = max(p[0] for line in drawn for p in line.points)
    low, high = _range([p[1] for line in drawn for p in line.points], log)
    paths = "".join(_path(line, ends, low, high, log) for line in drawn)
    keys = "".join(f'<li class="key {line.style}">{escape(line.name)}</li>' for line in drawn) if len(drawn) > 1 else ""
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><ul class="keys">{keys}</ul>'
        f'<div class="plot" aria-hidden="true"><span class="high">{_number(high)}{unit}</span>'
        f'<span class="low">{_number(low)}{unit}</span>'
        f'<svg viewBox="0 0 1000 100" preserveAspectRatio="none">{paths}</svg>'
        f'<span class="start">step 0</span><span class="end">{ends:,.0f}</span></div>'
        f"{details('As a table', _summary(title, series))}</figure>"
    )


def histogram(title: str, values: Sequence[float] | np.ndarray, edges: Sequence[float]) -> str:
    """Bars of the number of values from each edge to the next; the last bar is of all from the last edge on."""
    array = np.asarray(values, float)
    counts = [int(((array >= a) & (array < b)).sum()) for a, b in pairwise([*edges, math.inf])]
    names = [f"{_number(a)} – {_number(b)}" for a, b in pairwise(edges)] + [f"{_number(edges[-1])} or more"]
    most = max(counts) or 1
    bars = "".join(
        f'<li><span>{escape(name)}</span><i style="width:{100 * n / most:.1f}%"></i><b>{n:,}</b></li>'
        for name, n in zip(names, counts, strict=True)
    )
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption><ul class="bars">{bars}</ul></figure>'


def stack(parts: Mapping[str, float], title: str) -> str:
    """A stacked bar of the parts of a whole, with a list of their names and percentages."""
    whole = sum(parts.values()) or 1.0
    styles = dict(zip(parts, "abcdefgh", strict=False))
    bar = "".join(f'<i class="{styles[n]}" style="width:{100 * v / whole:.2f}%"></i>' for n, v in parts.items())
    keys = "".join(
        f'<li class="key {styles[n]}">{escape(n)} <b>{percent(v / whole, 0)}</b></li>' for n, v in parts.items()
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<div class="stack" aria-hidden="true">{bar}</div>'
        f'<ul class="keys">{keys}</ul></figure>'
    )


def _axis() -> str:
    return "".join(f'<span style="left:{at}%">{at}</span>' for at in (0, 25, 50, 75, 100))


def _marks(marks: Sequence[Mark]) -> str:
    drawn = []
    for mark in marks:
        if mark.interval is not None:
            low, high = (100 * side for side in mark.interval)
            drawn.append(f'<i class="interval {mark.style}" style="left:{low:.2f}%;width:{high - low:.2f}%"></i>')
        drawn.append(f'<i class="dot {mark.style}" style="left:{100 * mark.value:.2f}%"></i>')
    return "".join(drawn)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = max(1, math.ceil(len(points) / POINTS))
    stretches = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(p[0] for p in s) / len(s), sum(p[1] for p in s) / len(s)) for s in stretches]


def _range(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        return max(low, high / 1e6, 1e-12), max(high, 1e-12)
    low = min(0.0, low)
    return low, high if high > low else low + 1.0


def _path(line: Line, ends: float, low: float, high: float, log: bool) -> str:
    def place(value: float) -> float:
        if log:
            value = math.log(max(value, low) / low) / (math.log(high / low) or 1.0)
            return 98 - 96 * value
        return 98 - 96 * (value - low) / (high - low)

    at = [(1000 * step / ends if ends else 0.0, place(value)) for step, value in line.points]
    if len(at) == 1:
        # A line of one point would be invisible, so it becomes a dash of 20 units that holds the point.
        ((x, y),) = at
        at = [(max(0.0, x - 20), y), (max(20.0, x), y)]
    coordinates = " ".join(f"{x:.1f},{y:.2f}" for x, y in at)
    return f'<polyline class="{line.style}" points="{coordinates}"/>'


def _summary(title: str, series: Sequence[Line]) -> str:
    rows = []
    for line in series:
        values = [v for _, v in line.points if math.isfinite(v)]
        if values:
            rows.append([line.name, *map(_number, (values[0], min(values), max(values), values[-1]))])
    return table(["", "first", "lowest", "highest", "last"], rows, title)


def _number(value: float) -> str:
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.1e}"
