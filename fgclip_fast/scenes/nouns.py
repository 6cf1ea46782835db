"""Drawings of all nouns: a few vector shapes each, made to be recognised at a glance at 40 pixels.

``body`` carries colour and pattern. ``shade`` and ``tint`` are a darker and a lighter tone of the same colour. ``dark``
and ``pale`` are charcoal and ivory, which are not colours of the grammar, so that an accent cannot be taken for the
colour of the thing. All things are about as wide as high, so that a box does not tell what is in it.
"""

from collections.abc import Callable

from fgclip_fast.scenes import animals, household, outdoors
from fgclip_fast.scenes.grammar import NOUNS
from fgclip_fast.scenes.shapes import Part


def drawing(noun: str) -> list[Part]:
    """Return a noun's shapes in the unit square, those in front last."""
    return _DRAWINGS[noun]()


_DRAWINGS: dict[str, Callable[[], list[Part]]] = {
    noun: next(getattr(home, noun) for home in (household, outdoors, animals) if hasattr(home, noun)) for noun in NOUNS
}
