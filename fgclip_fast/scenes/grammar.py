"""The grammar of the scenes: the attributes of a thing and their values. Plain data, also for menus."""

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
    """A thing of a scene, fully described by five attributes."""

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
"""(noun, colour) pairs held out of all training texts, negatives included: 36 of the 240, one or two for each noun."""


def phrase(thing: Thing, form: tuple[str, ...] = Thing._fields) -> str:
    """Describe a thing as in ``a small snowy striped red mug``, with only the attributes that ``form`` names."""
    words = " ".join(getattr(thing, attribute) for attribute in form)
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
