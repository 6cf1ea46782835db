"""Backgrounds of scenes: a muted gradient with one of six textures."""

import colorsys

import numpy as np
from PIL import Image


def background(kind: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """Render a background.

    Args:
        kind: key of :data:`TEXTURES`.
        side: side S, pixels.
        rng: source of colours and texture.

    Returns:
        Array [S, S, 3], float64, 0 to 255.
    """
    ends = [_muted(rng) for _ in range(2)]
    ends[1] = 0.6 * ends[0] + 0.4 * ends[1]
    y, x = np.mgrid[:side, :side] / side - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    share = np.clip(0.5 + (np.cos(angle) * x + np.sin(angle) * y), 0, 1)[..., None]
    image = ends[0] * (1 - share) + ends[1] * share
    return np.clip(image * (1 + TEXTURES[kind](side, rng))[..., None], 0, 255)


def _muted(rng: np.random.Generator) -> np.ndarray:
    """A random pale or greyish colour, unlike any colour of a thing: array [3], 0 to 255."""
    return 255 * np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.05, 0.24), rng.uniform(0.5, 0.88)))


def _noise(side: int, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise in about [-1, 1], interpolated between ``rows`` x ``columns`` random knots: array [side, side]."""
    knots = Image.fromarray(rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
    return np.asarray(knots.resize((side, side), Image.Resampling.BICUBIC))


def _paper(side: int, rng: np.random.Generator) -> np.ndarray:
    return 0.05 * _noise(side, side, side, rng) + 0.06 * _noise(side, side // 3, side // 3, rng)


def _clouds(side: int, rng: np.random.Generator) -> np.ndarray:
    return 0.13 * _noise(side, 5, 5, rng) + 0.08 * _noise(side, 13, 13, rng)


def _wood(side: int, rng: np.random.Generator) -> np.ndarray:
    grain = 0.12 * _noise(side, 40, 3, rng) + 0.08 * _noise(side, side, 5, rng)
    boards = np.arange(side) % rng.integers(24, 40) < 1
    grain = grain - 0.25 * boards[:, None]
    return grain if rng.uniform() < 0.5 else grain.T


def _tiles(side: int, rng: np.random.Generator) -> np.ndarray:
    width = int(rng.integers(14, 26))
    start = rng.integers(0, width, 2)
    at = (np.arange(side)[:, None] + start) // width
    tone = rng.uniform(-0.07, 0.07, (side, side))[at[:, None, 0], at[None, :, 1]]
    joint = (np.arange(side)[:, None] + start) % width == 0
    return tone - 0.2 * (joint[:, None, 0] | joint[None, :, 1])


def _speckles(side: int, rng: np.random.Generator) -> np.ndarray:
    grains = np.where(rng.uniform(size=(side, side)) < 0.03, rng.uniform(-0.5, 0.3, (side, side)), 0)
    return grains + 0.04 * _noise(side, 20, 20, rng)


def _cloth(side: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:side, :side] * (2 * np.pi / rng.uniform(3.0, 5.0))
    return 0.05 * np.sin(x + y) * np.sin(x - y) + 0.07 * _noise(side, 7, 7, rng)


TEXTURES = {"paper": _paper, "clouds": _clouds, "wood": _wood, "tiles": _tiles, "speckles": _speckles, "cloth": _cloth}
"""Name of a background → function that draws its texture: relative brightness, array [S, S], around 0."""
