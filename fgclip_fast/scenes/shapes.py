"""Vector shapes that drawings are made of. Points lie in a unit square with y down: arrays [n, 2], float64."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Point = tuple[float, float]


class Part(NamedTuple):
    """One painted shape: a filled polygon, or a stroke if ``width`` is set."""

    points: np.ndarray
    """[n, 2]"""
    paint: str
    """One of :data:`fgclip_fast.scenes.surface.LABELS`."""
    width: float = 0.0
    """Width of a stroke, in units of the square; 0 fills the polygon."""
    outline: bool = True
    """Whether a dark edge is drawn around the shape."""


def polygon(*corners: Point) -> np.ndarray:
    """A polygon through ``corners``."""
    return np.array(corners, float)


def spline(*points: Point, closed: bool = True, steps: int = 8) -> np.ndarray:
    """A Catmull-Rom curve through ``points``, with ``steps`` points for each of its pieces."""
    p = np.array(points, float)
    if closed:
        before, p0, p1, after = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    else:
        padded = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
        before, p0, p1, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    before, p0, p1, after = (x[:, None] for x in (before, p0, p1, after))
    curve = p0 + 0.5 * t * (
        p1 - before + t * (2 * before - 5 * p0 + 4 * p1 - after + t * (3 * (p0 - p1) + after - before))
    )
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def ellipse(x: float, y: float, rx: float, ry: float | None = None, tilt: float = 0.0) -> np.ndarray:
    """An ellipse around (x, y), turned by ``tilt`` degrees; a circle without ``ry``."""
    return arc(x, y, rx, ry, 0, 360, tilt)[:-1]


def arc(x: float, y: float, rx: float, ry: float | None, start: float, stop: float, tilt: float = 0.0) -> np.ndarray:
    """An open part of an ellipse, from ``start`` to ``stop`` degrees, counted clockwise from the right."""
    angle = np.radians(np.linspace(start, stop, max(7, int(abs(stop - start) / 12))))
    around = np.stack([rx * np.cos(angle), (rx if ry is None else ry) * np.sin(angle)], 1)
    return around @ rotation(tilt).T + (x, y)


def rounded(*corners: Point, radius: float = 0.06) -> np.ndarray:
    """A polygon with corners rounded by up to ``radius``."""
    p = np.array(corners, float)
    before, after = np.roll(p, 1, 0) - p, np.roll(p, -1, 0) - p
    reach = [np.minimum(radius, np.linalg.norm(x, axis=1) / 2) / np.linalg.norm(x, axis=1) for x in (before, after)]
    start, stop = p + before * reach[0][:, None], p + after * reach[1][:, None]
    t = np.linspace(0, 1, 6)[None, :, None]
    start, corner, stop = start[:, None], p[:, None], stop[:, None]
    return ((1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t**2 * stop).reshape(-1, 2)


def box(left: float, top: float, right: float, bottom: float, radius: float = 0.05) -> np.ndarray:
    """A rectangle with rounded corners."""
    return rounded((left, top), (right, top), (right, bottom), (left, bottom), radius=radius)


def join(*pieces: np.ndarray) -> np.ndarray:
    """One outline made of several pieces, end to end."""
    return np.concatenate(pieces)


def turned(parts: Sequence[Part], tilt: float) -> list[Part]:
    """Turn parts around the centre of the square, clockwise by ``tilt`` degrees."""
    return [part._replace(points=(part.points - 0.5) @ rotation(tilt).T + 0.5) for part in parts]


def rotation(degrees: float) -> np.ndarray:
    """A rotation matrix [2, 2], clockwise on a screen."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s], [s, c]])
