"""Texts with the shape of FG-OVD's groups: a positive and ten negatives that differ from it in a few words."""

import random
from typing import NamedTuple

from benchmarks.workload import flat, group, random_text
from fgclip_fast.inputs.texts import Texts

GROUPS = 32


class Kind(NamedTuple):
    """Texts of one of FG-OVD's levels: tokens of a text, words that a negative replaces, and what must come of it."""

    lengths: tuple[int, int]
    replaced: int
    padding: float  # padded / unpadded tokens, within 0.4
    prefixes: float  # unpadded / tree tokens, within 0.15


KINDS = {
    "hard": Kind((10, 16), 1, padding=6.0, prefixes=1.7),
    "medium": Kind((11, 17), 2, padding=5.6, prefixes=1.46),
    "easy": Kind((15, 23), 3, padding=4.1, prefixes=1.32),
}


def texts_of(kind: Kind, longs: int, groups: int = GROUPS, seed: int = 0) -> Texts:
    """Distinct groups of a positive and ten negatives, and long captions of 110 tokens."""
    draw = random.Random(seed)
    rows = [row for _ in range(groups) for row in group(draw, kind.lengths, kind.replaced)]
    shorts = len(rows)
    rows += [random_text(draw, draw.randint(100, 120)) for _ in range(longs)]
    return Texts(*flat(rows), shorts).packed()
