"""Composes scenes: first the place of each thing, which is cheap and enough to write all texts, then the painting."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fgclip_fast.scenes import draw, surface
from fgclip_fast.scenes.background import background
from fgclip_fast.scenes.grammar import BACKGROUNDS, Thing

SIDE = 96
"""Side of a scene, pixels."""
LENGTHS = {"small": (28.0, 33.0), "large": (44.0, 50.0)}
"""Size → range of the longest side of a thing, pixels."""


class Placed(NamedTuple):
    """A thing and its place; its box is the box of its outline, in pixels."""

    thing: Thing
    pose: draw.Pose
    pattern: surface.Pattern
    left: float
    top: float
    width: float
    height: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """xyxy, pixels."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    @property
    def centre(self) -> tuple[float, float]:
        """x and y, pixels."""
        return self.left + self.width / 2, self.top + self.height / 2


class Scene(NamedTuple):
    """The contents of a scene; later things stand in front of earlier ones."""

    placed: tuple[Placed, ...]
    background: str
    seed: tuple[int, ...]
    """Seed of everything that no text describes: background, noise, brightness."""


def compose(things: Sequence[Thing], seed: tuple[int, ...]) -> Scene:
    """Place up to four things at random, each in a quarter of the scene of its own.

    A thing may reach a few pixels into the next quarter, but never beyond the edge of the scene.

    Args:
        things: the things, those in front last.
        seed: of places, poses, patterns and background.
    """
    rng = np.random.default_rng(seed)
    quarters = rng.permutation(4)[: len(things)]
    placed = tuple(_place(thing, int(q), rng) for thing, q in zip(things, quarters, strict=True))
    return Scene(placed, str(rng.choice(BACKGROUNDS)), seed)


def _place(thing: Thing, quarter: int, rng: np.random.Generator) -> Placed:
    pose = draw.Pose(
        length=float(rng.uniform(*LENGTHS[thing.size])),
        mirrored=bool(rng.uniform() < 0.5),
        angle=float(rng.uniform(-8, 8)),
        stretch=float(np.exp(rng.uniform(-0.12, 0.12))),
    )
    _, width, height, _ = draw.outline(thing.noun, pose)
    corner = []
    for start, extent in zip((quarter % 2, quarter // 2), (width, height), strict=True):
        low, high = start * SIDE / 2 - 3, (start + 1) * SIDE / 2 + 3 - extent
        at = rng.uniform(low, high) if low < high else (low + high) / 2
        corner.append(float(np.clip(at, 0.5, SIDE - 0.5 - extent)))
    return Placed(thing, pose, place_pattern(thing, pose, rng), corner[0], corner[1], width, height)


def place_pattern(thing: Thing, pose: draw.Pose, rng: np.random.Generator) -> surface.Pattern:
    """Choose at random how a thing's pattern lies on it."""
    angle, period = np.radians(rng.uniform(-8, 8)), 4.5 + 0.09 * pose.length
    return surface.Pattern(thing.pattern, period, float(angle), (float(rng.uniform()), float(rng.uniform())))


def render(scene: Scene) -> Image.Image:
    """Paint a scene: the background, each thing with its shadow or glow, and the noise of a camera."""
    rng = np.random.default_rng((*scene.seed, 1))
    image = background(scene.background, SIDE, rng)
    for placed in scene.placed:
        add(image, placed)
    image = image * rng.uniform(0.9, 1.06) + rng.normal(0, rng.uniform(1.0, 5.0), image.shape)
    return Image.fromarray(np.clip(image + 0.5, 0, 255).astype(np.uint8))


def add(image: np.ndarray, placed: Placed) -> None:
    """Paint a thing with its shadow or glow into ``image``, array [H, W, 3], 0 to 255, in place."""
    thing = placed.thing
    shape = draw.outline(thing.noun, placed.pose)
    sprite = draw.paint(shape, thing.colour, thing.finish, placed.pattern, (placed.left % 1, placed.top % 1))
    left, top = int(placed.left) - sprite.pad, int(placed.top) - sprite.pad
    H, W = sprite.alpha.shape
    rows, columns = (
        slice(max(0, top), min(image.shape[0], top + H)),
        slice(max(0, left), min(image.shape[1], left + W)),
    )
    own = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    window = image[rows, columns]
    if thing.finish == "glowing":
        window[:] = surface.glow(window, sprite.alpha, thing.colour, own)
    else:
        window *= 1 - 0.42 * surface.shadow(sprite.alpha)[own][..., None]
    alpha = sprite.alpha[own][..., None]
    window[:] = window * (1 - alpha) + sprite.rgb[own] * alpha
