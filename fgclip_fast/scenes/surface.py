"""How a thing's surface looks: tones of its colour, pattern, finish."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

LABELS = ("nothing", "outline", "body", "shade", "tint", "dark", "pale", "ink")
"""What a cell of a drawing can be; a drawing is an array of indices into this, painted last."""

CHARCOAL, IVORY = (40, 36, 44), (253, 247, 234)

TONES = {  # outline, shade, body, tint; the ramps of look-alikes (brown, orange, yellow; turquoise, green, blue) lie apart
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
INK = {colour: CHARCOAL if colour in ("orange", "yellow", "turquoise", "pink", "grey") else IVORY for colour in TONES}
"""Second colour of a pattern: charcoal or ivory, whichever stands out; neither is a colour of the grammar."""


class Print(NamedTuple):
    """How a pattern lies on a thing."""

    pattern: str
    period: float  # pixels of the scene
    angle: float  # radians
    shift: tuple[float, float]  # in periods


def palette(colour: str) -> np.ndarray:
    """Tensor-like array [len(LABELS), 3]: the paint of each label."""
    outline, shade, body, tint = TONES[colour]
    return np.array([(0, 0, 0), outline, body, shade, tint, CHARCOAL, IVORY, INK[colour]], np.float32)


def inked(shape: tuple[int, int], pixel: float, print_: Print) -> np.ndarray:
    """Where the pattern has ink: bool [H, W], ``pixel`` being the side of a cell in pixels of the scene."""
    if print_.pattern == "plain":
        return np.zeros(shape, bool)
    y, x = np.ogrid[: shape[0], : shape[1]]
    c, s = np.cos(print_.angle), np.sin(print_.angle)
    u = (c * x + s * y) * (pixel / print_.period) + print_.shift[0]
    if print_.pattern == "striped":
        return (u % 1) < 0.42
    v = (c * y - s * x) * (pixel / print_.period) + print_.shift[1]
    if print_.pattern == "checked":
        return ((u % 1) < 0.5) ^ ((v % 1) < 0.5)
    odd = (np.floor(v) % 2) * 0.5  # dots: every second row is shifted by half a period
    return ((u + odd) % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.3**2


def blur(mask: np.ndarray, radius: float) -> np.ndarray:
    """A mask in [0, 1], softened."""
    image = Image.fromarray((mask * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def lit(rgb: np.ndarray, alpha: np.ndarray, body: np.ndarray, finish: str) -> np.ndarray:
    """Shading and highlight: the light comes from the upper left.

    Args:
        rgb: [H, W, 3], 0 to 255, flat paint.
        alpha: [H, W] in [0, 1], the thing.
        body: [H, W] in [0, 1], its part that carries the finish.
        finish: a word of the grammar.
    """
    H, W = alpha.shape
    rows, columns = np.nonzero(alpha > 0.5)
    side = int(max(np.ptp(rows), np.ptp(columns))) + 1
    y, x = np.mgrid[:H, :W].astype(np.float32)
    depth = blur(alpha, side * 0.09)
    gy, gx = np.gradient(depth)
    slope = (gx + gy) * side * 0.09  # a soft edge, bright where it faces the light
    across = ((rows.mean() - y) + (columns.mean() - x)) / side
    relief, fall = {"matte": (0.25, 0.1), "shiny": (0.75, 0.3), "glowing": (0.0, 0.0)}[finish]
    light = relief * np.clip(slope, -0.8, 0.8) + fall * across
    if finish == "glowing":
        light = 0.5 * body * np.clip(depth * 1.5 - 0.75, 0, 0.8)
    if finish == "shiny":
        light = light + _gleam(x, y, body, rows, columns, side)
    light = light[..., None]
    return np.where(light > 0, rgb + (255 - rgb) * np.minimum(light, 1), rgb * np.maximum(1 + light, 0.25))


def _gleam(x: np.ndarray, y: np.ndarray, body: np.ndarray, rows: np.ndarray, columns: np.ndarray, side: int) -> np.ndarray:
    """Two white streaks across the body, as of a window's light on something polished."""
    weight = body.sum() + 1e-6
    u = ((x - (body * x).sum() / weight) + (y - (body * y).sum() / weight)) / (side * 1.414)
    along = ((x - columns.mean()) - (y - rows.mean())) / (side * 1.414)
    streak = np.exp(-(((u + 0.17) / 0.055) ** 6)) + 0.8 * np.exp(-(((u + 0.04) / 0.022) ** 6))
    return 0.9 * streak * body * np.exp(-((along / 0.42) ** 6))
