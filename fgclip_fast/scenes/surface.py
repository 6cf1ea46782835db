"""Surfaces of things: the tones of a colour, patterns, finishes, shadow and glow."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

LABELS = ("nothing", "outline", "body", "shade", "tint", "dark", "pale", "ink")
"""Labels of the cells of a drawing; a drawing is an array of indices into them."""

CHARCOAL, IVORY = (40, 36, 44), (253, 247, 234)

# Colours that look alike are set apart: brown, orange and yellow; turquoise, green and blue.
TONES = {
    "red": ((74, 6, 14), (150, 16, 28), (224, 32, 40), (255, 128, 118)),
    "orange": ((112, 46, 0), (206, 96, 0), (255, 142, 16), (255, 202, 122)),
    "yellow": ((104, 80, 0), (208, 166, 0), (255, 224, 44), (255, 246, 160)),
    "green": ((8, 56, 14), (26, 104, 32), (48, 158, 52), (142, 216, 124)),
    "turquoise": ((0, 70, 76), (0, 140, 144), (46, 208, 204), (166, 242, 234)),
    "blue": ((8, 18, 84), (20, 48, 158), (40, 88, 226), (132, 172, 255)),
    "purple": ((44, 10, 76), (88, 28, 138), (136, 56, 196), (198, 142, 242)),
    "pink": ((124, 24, 78), (216, 84, 150), (255, 148, 200), (255, 208, 230)),
    "brown": ((42, 22, 8), (82, 46, 20), (124, 76, 38), (184, 136, 90)),
    "grey": ((40, 42, 46), (94, 98, 104), (148, 152, 158), (206, 209, 214)),
}
"""Colour → RGB of outline, shade, body and tint."""
INK = {colour: CHARCOAL if colour in ("orange", "yellow", "turquoise", "pink", "grey") else IVORY for colour in TONES}
"""Colour → RGB of the ink of its patterns: charcoal or ivory, whichever stands out. Neither is in the grammar."""


class Pattern(NamedTuple):
    """A pattern and the way it lies on a thing."""

    name: str
    period: float  # pixels of the scene
    angle: float  # radians
    shift: tuple[float, float]  # in periods


def palette(colour: str) -> np.ndarray:
    """The RGBA paint of each label for a colour: uint8 [len(LABELS), 4]."""
    outline, shade, body, tint = TONES[colour]
    paints = [(0, 0, 0), outline, body, shade, tint, CHARCOAL, IVORY, INK[colour]]
    return np.array([(*rgb, 255 * (i > 0)) for i, rgb in enumerate(paints)], np.uint8)


def ink_mask(shape: tuple[int, int], pixel: float, pattern: Pattern) -> np.ndarray:
    """Compute the cells in which a pattern has ink.

    Args:
        shape: (H, W) in cells.
        pixel: side of a cell, in pixels of the scene.
        pattern: the pattern.

    Returns:
        bool [H, W]
    """
    if pattern.name == "plain":
        return np.zeros(shape, bool)
    y, x = (axis.astype(np.float32) * np.float32(pixel / pattern.period) for axis in np.ogrid[: shape[0], : shape[1]])
    c, s = np.float32(np.cos(pattern.angle)), np.float32(np.sin(pattern.angle))
    u = c * x + s * y + np.float32(pattern.shift[0])
    if pattern.name == "striped":
        return u - np.floor(u) < 0.42
    v = c * y - s * x + np.float32(pattern.shift[1])
    row = np.floor(v)
    u += 0.5 * (row % 2)  # every second row of dots is shifted by half a period
    return (u - np.floor(u) - 0.5) ** 2 + (v - row - 0.5) ** 2 < 0.3**2


def blur(mask: np.ndarray, radius: float) -> np.ndarray:
    """Blur a mask in [0, 1]; ``radius`` in pixels."""
    image = Image.fromarray((mask * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def shade(rgb: np.ndarray, alpha: np.ndarray, body: np.ndarray, finish: str) -> np.ndarray:
    """Add shading, highlights and snow; the light comes from the upper left.

    Args:
        rgb: [H, W, 3], 0 to 255, flat paint.
        alpha: [H, W] in [0, 1], coverage by the thing.
        body: [H, W] in [0, 1], coverage by the part that carries the finish.
        finish: a word of the grammar.

    Returns:
        [H, W, 3], about 0 to 255, not clipped.
    """
    H, W = alpha.shape
    rows, columns = np.nonzero(alpha > 0.5)
    side = int(max(np.ptp(rows), np.ptp(columns))) + 1
    y, x = np.mgrid[:H, :W].astype(np.float32)
    depth = blur(alpha, side * 0.09)
    gy, gx = np.gradient(depth)
    slope = (gx + gy) * side * 0.09  # a soft edge, bright where it faces the light
    across = ((rows.mean() - y) + (columns.mean() - x)) / side
    relief, fall = {"matte": (0.25, 0.1), "glowing": (0.0, 0.0), "snowy": (0.3, 0.1)}[finish]
    light = relief * np.clip(slope, -0.8, 0.8) + fall * across
    if finish == "glowing":
        light = 0.28 * body * np.clip(depth * 1.5 - 0.75, 0, 0.8)
    light = light[..., None]
    if finish == "snowy":
        rgb = _snowed(rgb, alpha, x, side)
    return np.where(light > 0, rgb + (255 - rgb) * np.minimum(light, 1), rgb * np.maximum(1 + light, 0.25))


def _snowed(rgb: np.ndarray, alpha: np.ndarray, x: np.ndarray, side: int) -> np.ndarray:
    """Put snow of varying thickness on what lies open to the sky."""
    below = np.cumsum(alpha, axis=0)  # pixels of the thing above and including this one
    thick = side * (0.16 + 0.045 * np.sin(x * (21 / side)))
    snow = np.clip(below - 0.8, 0, 1) * np.clip(thick - below + 0.8, 0, 1)  # leaves the outline free
    edge = np.clip(thick - below + 1.8, 0, 1)  # the shadow of the snow
    rgb = rgb * (1 - 0.45 * edge[..., None])
    return rgb * (1 - snow[..., None]) + np.array((248, 252, 255), np.float32) * snow[..., None]


def shadow(alpha: np.ndarray) -> np.ndarray:
    """Compute the share of light that a thing takes from the background below and to the right of it: [H, W]."""
    return blur(np.roll(alpha, (3, 2), (0, 1)), 1.6)


def glow(window: np.ndarray, alpha: np.ndarray, colour: str, own: tuple[slice, slice]) -> np.ndarray:
    """Light the background of a glowing thing: a bright ring, and a haze in its colour around it.

    Args:
        window: [h, w, 3], 0 to 255, the background.
        alpha: [H, W] in [0, 1], coverage by the thing.
        colour: a word of the grammar.
        own: the part of ``alpha`` that lies in the window.
    """
    near, far = np.minimum(1, 2.2 * blur(alpha, 1.2)), np.minimum(1, 1.8 * blur(alpha, 3.2))
    tint = np.array(TONES[colour][3], np.float32)
    for share, light in ((0.85 * far, 0.75 * tint + 0.25 * 255), (0.95 * near, np.full(3, 255.0))):
        share = share[own][..., None]
        window = window * (1 - share) + light * share
    return window
