"""Find the meaning of a source's box numbers from all of its boxes, or check the meaning that is stated.

A reading, such as ``xywh-pixel``, fits a box if it makes an area inside the image. Each worker counts for each reading
how many boxes it fits; the counts are added up, and one reading is chosen for the whole source, or the import ends with
the counts.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from fgclip_fast.inputs.boxes import Box

BoxUnit = Literal[
    "xyxy-pixel", "xywh-pixel", "cxcywh-pixel", "xyxy-fraction", "xywh-fraction", "cxcywh-fraction",
    "xyxy-1000", "xywh-1000", "xyxy-999",
]  # fmt: skip
"""Meaning of a box's four numbers: corners, or corner and size, or centre and size; in pixels, in fractions of the
image, or in thousandths of it counted to 1000 or to 999."""
UNITS: tuple[BoxUnit, ...] = get_args(BoxUnit)
FITS = 0.9
"""Share of the boxes that a reading must fit to be believed."""
FEW = 8
"""Boxes below which a stated reading is not doubted."""
ENOUGH = 0.5
"""Share that a stated reading must fit where no other fits better."""
# Counted to 999 they differ from counted to 1000 by a thousandth; centres are never guessed, but named in messages.
_COUNTED: tuple[BoxUnit, ...] = tuple(unit for unit in UNITS if unit != "xyxy-999")
_GUESSED: tuple[BoxUnit, ...] = tuple(unit for unit in _COUNTED if not unit.startswith("cxcywh"))
_OVER = 0.01  # share of a side by which a box may reach over the edge, as rounding does
_SURE, _UNSURE = 1e-4, 0.05  # chances that pixels look like thousandths


class Evidence(NamedTuple):
    """Evidence of the unit of some boxes; that of several parts can be added."""

    boxes: int = 0
    """Boxes of four finite numbers, in images whose size is known."""
    fits: Mapping[str, int] = {}
    """Number of boxes that each reading fits."""
    luck: float = 0.0
    """Logarithm of the chance that no pixel coordinate passes 1000 on sides longer than that."""
    largest: float = -math.inf
    """Largest coordinate of a corner."""
    at_999: int = 0
    """Number of coordinates that are 999."""

    def plus(self, other: "Evidence") -> "Evidence":
        """Return the evidence of both."""
        return Evidence(
            self.boxes + other.boxes,
            Counter(self.fits) + Counter(other.fits),
            self.luck + other.luck,
            max(self.largest, other.largest),
            self.at_999 + other.at_999,
        )

    def shares(self) -> str:
        """The counts in words, best first."""
        best = sorted(_COUNTED, key=lambda unit: -self.fits.get(unit, 0))
        fitting = [f"{unit} fits {self.fits[unit]}" for unit in best if self.fits.get(unit)]
        return f"of {self.boxes} boxes {', '.join(fitting[:4]) or 'no reading fits one'}"


def evidence(boxes: Sequence[Sequence[float]], width: float, height: float) -> Evidence:
    """Evidence of the boxes of one image.

    Args:
        boxes: four finite numbers each.
        width: of the image to which the boxes refer, pixels.
        height: likewise.
    """
    fits: Counter[str] = Counter()
    luck, largest, at_999 = 0.0, -math.inf, 0
    for box in boxes:
        fits.update(unit for unit in _COUNTED if _fits(as_fractions(box, unit, width, height), unit, width, height))
        luck += sum(math.log(min(1.0, 1000 / side)) for side in (width, height))
        largest = max(largest, *box)
        at_999 += sum(number == 999 for number in box)
    return Evidence(len(boxes), fits, luck, largest, at_999)


def as_fractions(box: Sequence[float], unit: str, width: float, height: float) -> Box:
    """Convert a box to x1, y1, x2, y2 as fractions of the image; nothing is checked or rounded."""
    x, y, third, fourth = box
    form, _, scale = unit.partition("-")
    if form == "xywh":
        third, fourth = x + third, y + fourth
    elif form == "cxcywh":
        x, y, third, fourth = x - third / 2, y - fourth / 2, x + third / 2, y + fourth / 2
    wide, high = {"pixel": (width, height), "fraction": (1.0, 1.0)}.get(scale) or (float(scale),) * 2
    return x / wide, y / high, third / wide, fourth / high


def _fits(box: Box, unit: str, width: float, height: float) -> bool:
    x1, y1, x2, y2 = box
    # A fraction read as pixels is a box of less than one pixel.
    least = 0.0 if unit.endswith("fraction") else 0.999
    over_x, over_y = (max(_OVER, 1.5 / side) for side in (width, height))
    return (
        (x2 - x1) * width > 0 and (y2 - y1) * height > 0
        and _extent(x2 - x1, unit, width) >= least and _extent(y2 - y1, unit, height) >= least
        and x1 >= -over_x and y1 >= -over_y and x2 <= 1 + over_x and y2 <= 1 + over_y
    )  # fmt: skip


def _extent(share: float, unit: str, side: float) -> float:
    """A side of a box in its own unit."""
    return share * (1000 if unit.endswith("1000") else side)


def detect(found: Evidence) -> tuple[BoxUnit, str]:
    """Choose the reading of a source whose format does not state one.

    Returns:
        The unit, and the reason in words.

    Raises:
        ValueError: no reading fits, or several do; the message holds the counts.
    """
    fitting: list[BoxUnit] = [unit for unit in _GUESSED if found.fits.get(unit, 0) >= FITS * found.boxes]
    fitting = _pixels_or_thousandths(found, fitting)
    if len(fitting) == 1:
        return _to_999(found, fitting[0]), found.shares()
    problem = f"{' and '.join(fitting)} both fit" if fitting else "no unit fits: boxes of different units, or broken"
    raise ValueError(f"data import: --boxes must say the unit of the boxes, since {problem}; {found.shares()}")


def check(found: Evidence, unit: BoxUnit) -> str:
    """Check a stated unit against the boxes; return the counts in words.

    Raises:
        ValueError: it fits too few of at least :data:`FEW` boxes; the message names the likely unit.
    """
    counted = "xyxy-1000" if unit == "xyxy-999" else unit
    fits = found.fits.get(counted, 0)
    others = [other for other in _COUNTED if other != counted and found.fits.get(other, 0) >= FITS * found.boxes]
    if found.boxes < FEW:
        return found.shares()
    if fits < FITS * found.boxes and others:
        raise ValueError(
            f"data import: boxes must be {unit}, but that fits only {fits} of {found.boxes};"
            f" they look like {' or '.join(others)}: pass --boxes {others[0]}"
        )
    if fits < ENOUGH * found.boxes:
        raise ValueError(f"data import: boxes must be {unit}, but that fits only {fits}; {found.shares()}")
    return found.shares()


def _pixels_or_thousandths(found: Evidence, fitting: list[BoxUnit]) -> list[BoxUnit]:
    """Where both fit, the boxes are pixels, unless the images are so large that some box would pass 1000."""
    pixels = [unit for unit in fitting if unit.endswith("pixel")]
    thousandths = [unit for unit in fitting if unit.endswith("1000")]
    if not pixels or not thousandths:
        return fitting
    chance = math.exp(found.luck) if found.largest <= 1000 else 1.0
    if chance < _SURE:
        return [unit for unit in fitting if unit not in pixels]
    return fitting if chance < _UNSURE else [unit for unit in fitting if unit not in thousandths]


def _to_999(found: Evidence, unit: BoxUnit) -> BoxUnit:
    return "xyxy-999" if unit == "xyxy-1000" and found.largest == 999 and found.at_999 > 1 else unit
