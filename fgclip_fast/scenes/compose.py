"""Puts things into a picture: where they stand is decided first (cheap, and enough for all texts), then painted."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from fgclip_fast.scenes import draw, surface
from fgclip_fast.scenes.background import background
from fgclip_fast.scenes.grammar import BACKGROUNDS, Thing

SIDE = 96
LENGTHS = {"small": (28.0, 33.0), "large": (44.0, 50.0)}  # of the longest side, pixels


class Placed(NamedTuple):
    """A thing and its place; the box is that of its outline."""

    thing: Thing
    pose: draw.Pose
    print: surface.Print
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
    """Everything in a picture; the later things stand in front."""

    placed: tuple[Placed, ...]
    background: str
    seed: tuple[int, ...]  # of the strokes that no text tells of


def compose(things: Sequence[Thing], seed: tuple[int, ...]) -> Scene:
    """Places up to four things, one a quarter of the picture, a little over its edge; all wholly in the picture."""
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
    return Placed(thing, pose, printed(thing, pose, rng), corner[0], corner[1], width, height)


def printed(thing: Thing, pose: draw.Pose, rng: np.random.Generator) -> surface.Print:
    """Draws how a pattern lies on a thing."""
    angle, period = np.radians(rng.uniform(-8, 8)), 4.5 + 0.09 * pose.length
    return surface.Print(thing.pattern, period, float(angle), (float(rng.uniform()), float(rng.uniform())))


def render(scene: Scene) -> Image.Image:
    """Paints a scene: background, then each thing with its shadow or glow, then the camera's noise."""
    rng = np.random.default_rng((*scene.seed, 1))
    picture = background(scene.background, SIDE, rng)
    for placed in scene.placed:
        add(picture, placed)
    picture = picture * rng.uniform(0.9, 1.06) + rng.normal(0, rng.uniform(1.0, 5.0), picture.shape)
    return Image.fromarray(np.clip(picture + 0.5, 0, 255).astype(np.uint8))


def add(picture: np.ndarray, placed: Placed) -> None:
    """Paints one thing into ``picture`` [H, W, 3], in place, with its shadow or glow."""
    thing = placed.thing
    shape = draw.outline(thing.noun, placed.pose)
    sprite = draw.paint(shape, thing.colour, thing.finish, placed.print, (placed.left % 1, placed.top % 1))
    left, top = int(placed.left) - sprite.pad, int(placed.top) - sprite.pad
    H, W = sprite.alpha.shape
    rows, columns = (
        slice(max(0, top), min(picture.shape[0], top + H)),
        slice(max(0, left), min(picture.shape[1], left + W)),
    )
    own = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    window = picture[rows, columns]
    if thing.finish == "glowing":
        window[:] = surface.glow(window, sprite.alpha, thing.colour, own)
    else:
        window *= 1 - 0.42 * surface.shadow(sprite.alpha)[own][..., None]
    alpha = sprite.alpha[own][..., None]
    window[:] = window * (1 - alpha) + sprite.rgb[own] * alpha
