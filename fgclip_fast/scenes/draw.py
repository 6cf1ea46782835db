"""Draws one thing: its noun's shapes as flat labels at four times the size, then colours, then light."""

from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from fgclip_fast.scenes import surface
from fgclip_fast.scenes.nouns import drawing
from fgclip_fast.scenes.shapes import Part, rotation

OVERSAMPLING = 4
"""Cells of a drawing along each side of a pixel."""


class Pose(NamedTuple):
    """Size and orientation of a thing in its scene."""

    length: float  # longest side, pixels
    mirrored: bool = False
    angle: float = 0.0  # degrees
    stretch: float = 1.0  # factor on the noun's own width over height


class Outline(NamedTuple):
    """A noun's parts in pixels; their common box is [0, width] x [0, height]."""

    parts: list[Part]
    width: float
    height: float
    border: float  # width of the dark edge, pixels


class Sprite(NamedTuple):
    """A painted thing with ``pad`` pixels around its box."""

    rgb: np.ndarray  # [H, W, 3], 0 to 255
    alpha: np.ndarray  # [H, W], 0 to 1
    pad: int


def outline(noun: str, pose: Pose) -> Outline:
    """Pose a noun's shapes and scale them so that the longest side of their common box is ``pose.length``."""
    border = 0.55 + 0.014 * pose.length
    flip = np.array([(-1 if pose.mirrored else 1) * np.sqrt(pose.stretch), 1 / np.sqrt(pose.stretch)])
    tilt = rotation(pose.angle).T
    parts = [part._replace(points=(part.points * flip) @ tilt) for part in _parts(noun)]
    low, high = _extent(parts, border / pose.length)
    scale = (pose.length - 2 * border) / max(high - low)
    # The edge does not scale with the shapes, so the scale is found by iteration; two steps are enough.
    for _ in range(2):
        low, high = _extent(parts, border / scale)
        scale *= pose.length / (max(high - low) * scale)
    parts = [part._replace(points=(part.points - low) * scale, width=part.width * scale) for part in parts]
    width, height = (high - low) * scale
    return Outline(parts, width, height, border)


@cache
def _parts(noun: str) -> list[Part]:
    """A noun's shapes around the origin, stretched most of the way to a square: a box should not tell the noun."""
    parts = [part._replace(points=part.points - 0.5) for part in drawing(noun)]
    low, high = _extent(parts, 0.03)
    squeeze = ((high - low).mean() / (high - low)) ** (2 / 3)
    return [part._replace(points=part.points * squeeze) for part in parts]


def _extent(parts: list[Part], border: float) -> tuple[np.ndarray, np.ndarray]:
    reach = [part.width / 2 + (border if part.outline else 0) for part in parts]
    low = np.min([part.points.min(0) - r for part, r in zip(parts, reach, strict=True)], 0)
    high = np.max([part.points.max(0) + r for part, r in zip(parts, reach, strict=True)], 0)
    return low, high


def paint(
    shape: Outline,
    colour: str,
    finish: str,
    pattern: surface.Pattern,
    offset: tuple[float, float],
    pad: int = 8,
) -> Sprite:
    """Paint the shapes of a thing.

    Args:
        shape: the posed shapes.
        colour, finish: words of the grammar.
        pattern: the pattern.
        offset: x and y in [0, 1), the part of a pixel by which the box is moved right and down.
        pad: pixels around the box, for shadow and glow.
    """
    labels = _labels(shape, offset)
    body = labels == surface.LABELS.index("body")
    ink = body & surface.ink_mask(labels.shape, 1 / OVERSAMPLING, pattern)
    labels = np.where(ink, surface.LABELS.index("ink"), labels)
    painted = np.pad(_shrink(surface.palette(colour)[labels]), ((pad, pad), (pad, pad), (0, 0)))
    rgb, alpha = painted[..., :3], painted[..., 3] / 255
    body_share = np.pad(_shrink(np.where(body, np.uint8(255), np.uint8(0))), pad) / 255
    return Sprite(np.clip(surface.shade(rgb, alpha, body_share, finish), 0, 255), alpha, pad)


def _labels(shape: Outline, offset: tuple[float, float]) -> np.ndarray:
    """Draw the shapes as indices into ``surface.LABELS``: uint8 [H, W], in cells."""
    k = OVERSAMPLING
    size = [int(np.ceil(extent + start)) * k for extent, start in zip((shape.width, shape.height), offset, strict=True)]
    canvas = Image.new("L", (size[0], size[1]), 0)
    draw = ImageDraw.Draw(canvas)
    for part in shape.parts:
        points = [(float(x), float(y)) for x, y in (part.points + offset) * k]
        label = surface.LABELS.index(part.paint)
        if part.outline:
            _stroke(draw, points if part.width else [*points, points[0]], (part.width + 2 * shape.border) * k, 1)
        if part.width:
            _stroke(draw, points, part.width * k, label)
        else:
            draw.polygon(points, fill=label)
    return np.asarray(canvas)


def _stroke(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], width: float, label: int) -> None:
    # Segments of a thin smooth curve leave no visible gaps, so their joints need no filling.
    joint = "curve" if len(points) < 12 or width > 12 else None
    draw.line(points, fill=label, width=max(1, round(width)), joint=joint)
    for x, y in (points[0], points[-1]):
        draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=label)


def _shrink(cells: np.ndarray) -> np.ndarray:
    """Average blocks of OVERSAMPLING x OVERSAMPLING cells to fp32 pixels, weighted by the alpha channel if present."""
    return np.asarray(Image.fromarray(cells).reduce(OVERSAMPLING), np.float32)
