"""A contact sheet: every word of the grammar as a labelled picture, for people to look at."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fgclip_fast.scenes import surface
from fgclip_fast.scenes.compose import LENGTHS, Placed, add, place_pattern
from fgclip_fast.scenes.draw import Pose, outline
from fgclip_fast.scenes.grammar import COLOURS, FINISHES, NOUNS, PATTERNS, SIZES, Thing

COLUMNS = 12
PAPER = (222, 218, 208)
"""RGB of the sheet."""


def contact_sheet(length: float = 80, seed: int = 0) -> Image.Image:
    """Render all nouns, then all colours and sizes, then all patterns and finishes.

    Args:
        length: longest side of each thing, pixels; at 40 each must still be recognised at a glance.
        seed: of the way patterns lie on things.
    """
    rng = np.random.default_rng(seed)
    nouns = [
        (noun, Thing("large", FINISHES[(i + i // 3) % 3], PATTERNS[i % 3], COLOURS[i * 7 % 10], noun))
        for i, noun in enumerate(NOUNS)
    ]
    colours = [(colour, Thing("large", "matte", "plain", colour, "mug")) for colour in COLOURS]
    patterns = [(pattern, Thing("large", "matte", pattern, "blue", "fish")) for pattern in PATTERNS]
    finishes = [(finish, Thing("large", finish, "plain", "red", "teapot")) for finish in FINISHES]
    sizes = [(size, Thing(size, "matte", "striped", "orange", "car")) for size in SIZES]
    rows = [
        entries[i : i + COLUMNS]
        for entries in (nouns, colours + sizes, patterns + finishes)
        for i in range(0, len(entries), COLUMNS)
    ]
    cell = round(length) + 24
    sheet = np.full((len(rows) * (cell + 14), COLUMNS * cell, 3), PAPER, np.float32)
    for r, row in enumerate(rows):
        for c, (_, thing) in enumerate(row):
            _add(sheet, thing, length, (r * (cell + 14), c * cell, cell), rng)
    image = Image.fromarray(np.clip(sheet + 0.5, 0, 255).astype(np.uint8))
    _label(image, rows, cell)
    return image


def _add(sheet: np.ndarray, thing: Thing, length: float, place: tuple[int, int, int], rng: np.random.Generator) -> None:
    """Paint a thing into the centre of a cell (top, left, side); a small thing is smaller."""
    top, left, side = place
    small = np.mean(LENGTHS["small"]) / np.mean(LENGTHS["large"])
    pose = Pose(float(length * (small if thing.size == "small" else 1)))
    shape = outline(thing.noun, pose)
    at = left + (side - shape.width) / 2, top + (side - shape.height) / 2
    plain = surface.Pattern("plain", 1.0, 0.0, (0.0, 0.0))
    pattern = plain if thing.pattern == "plain" else place_pattern(thing, pose, rng)
    add(sheet, Placed(thing, pose, pattern, at[0], at[1], shape.width, shape.height))


def _label(image: Image.Image, rows: list[list[tuple[str, Thing]]], cell: int) -> None:
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    for r, row in enumerate(rows):
        for c, (name, _) in enumerate(row):
            draw.text((c * cell + cell / 2, r * (cell + 14) + cell + 4), name, (60, 56, 60), font, anchor="mm")
