"""The words of the scenes: what there is to be said about a thing. Plain data, also for menus."""

from typing import NamedTuple

COLOURS = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "brown", "grey")
PATTERNS = ("plain", "striped", "dotted")
FINISHES = ("matte", "glowing", "snowy")
SIZES = ("small", "large")
NOUNS = (
    "mug", "teapot", "house", "tree", "fish", "boat", "car", "umbrella", "mushroom", "flower", "cat", "duck",
    "butterfly", "hat", "boot", "shirt", "bell", "crown", "padlock", "guitar", "chair", "rocket", "snail", "apple",
)  # fmt: skip
BACKGROUNDS = ("paper", "clouds", "wood", "tiles", "speckles", "cloth")


class Thing(NamedTuple):
    """One thing, told apart from any other by five attributes."""

    size: str
    finish: str
    pattern: str
    colour: str
    noun: str

    @property
    def pair(self) -> tuple[str, str]:
        """(noun, colour)."""
        return self.noun, self.colour


ATTRIBUTES: dict[str, tuple[str, ...]] = dict(
    zip(Thing._fields, (SIZES, FINISHES, PATTERNS, COLOURS, NOUNS), strict=True)
)
"""The values of each attribute, in the order in which a phrase names them."""

HELD_OUT = frozenset(
    (noun, COLOURS[(3 * i + extra) % len(COLOURS)])
    for i, noun in enumerate(NOUNS)
    for extra in ((0,) if i % 2 else (0, 5))
)
"""(noun, colour) pairs that occur in no training text, negatives included: 36 of the 240, one or two a noun."""


def phrase(thing: Thing, form: tuple[str, ...] = Thing._fields) -> str:
    """``a small snowy striped red mug``, or those of its words that ``form`` names."""
    words = " ".join(getattr(thing, attribute) for attribute in form)
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
