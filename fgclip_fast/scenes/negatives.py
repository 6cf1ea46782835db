"""Negatives: descriptions that are nearly right, for training and for questions.

The values of an attribute exclude each other and a full phrase names all five attributes, so a text that differs in
any word is wrong about the thing.
"""

from collections.abc import Sequence
from itertools import combinations, product
from random import Random

from fgclip_fast.scenes.grammar import ATTRIBUTES, HELD_OUT, Thing, phrase

NEGATIVES = 10
"""Negatives of each text, as in FG-OVD's levels and FineHARD's regions."""

CHANGE_SHARES = {1: 0.7, 2: 0.2, 3: 0.1}
"""Attributes that a training negative changes → share of the negatives."""

ATTRIBUTE_SHARES = {"noun": 0.32, "pattern": 0.24, "finish": 0.17, "colour": 0.15, "size": 0.12}
"""Changed attribute → share, for phrases that name all five; a phrase that names fewer uses the same proportions."""

QUALITIES = ("size", "finish", "pattern", "colour")
"""Attributes that FG-OVD's levels change; the noun stays."""


def training_negatives(thing: Thing, form: tuple[str, ...], rng: Random, count: int = NEGATIVES) -> list[str]:
    """Choose the negatives of a training text: ``count`` different phrases of the same form, without a held-out pair.

    Args:
        thing: the thing that the text describes.
        form: the attributes that the text names.
        rng: source of the changes.
        count: number of negatives.
    """
    found: dict[str, None] = {}
    while len(found) < count:
        other = _changed(thing, form, rng)
        if "colour" not in form or other.pair not in HELD_OUT:
            found[phrase(other, form)] = None
    return list(found)


def _changed(thing: Thing, form: tuple[str, ...], rng: Random) -> Thing:
    most = min(len(form), max(CHANGE_SHARES))
    count = rng.choices(range(1, most + 1), [CHANGE_SHARES[n] for n in range(1, most + 1)])[0]
    chosen: set[str] = set()
    while len(chosen) < count:
        chosen.add(rng.choices(form, [ATTRIBUTE_SHARES[attribute] for attribute in form])[0])
    return thing._replace(
        **{a: rng.choice([v for v in ATTRIBUTES[a] if v != getattr(thing, a)]) for a in sorted(chosen)}
    )


def changing_attribute(thing: Thing, attribute: str, rng: Random, count: int = NEGATIVES) -> list[Thing]:
    """Choose up to ``count`` things that differ in one attribute only."""
    values = [value for value in ATTRIBUTES[attribute] if value != getattr(thing, attribute)]
    return [thing._replace(**{attribute: value}) for value in rng.sample(values, min(count, len(values)))]


def changing_qualities(thing: Thing, changes: int, rng: Random, count: int = NEGATIVES) -> list[Thing]:
    """Choose things that differ in exactly ``changes`` qualities, as in FG-OVD's hard (1), medium (2) and easy (3).

    In a hard group the right text is the one most like all others, by definition of the level. In a medium group the
    negatives gather around one of them, a decoy, so that the text most like the others is wrong. At most three
    negatives in ten have the other size, because the box tells the size.
    """
    candidates = _at_distance(thing, changes)
    decoy = rng.choice(candidates)
    chosen = [decoy]
    while len(chosen) < count:
        full = sum(other.size != thing.size for other in chosen) >= 0.3 * count
        candidates = [c for c in candidates if c not in chosen and not (full and c.size != thing.size)]
        weights = [6.0 ** _agreement(other, decoy) if changes == 2 else 1.0 for other in candidates]
        chosen.append(rng.choices(candidates, weights)[0])
    rng.shuffle(chosen)
    return chosen


def _at_distance(thing: Thing, changes: int) -> list[Thing]:
    """All things that differ in exactly ``changes`` qualities."""
    found = []
    for attributes in combinations(QUALITIES, changes):
        others = [[value for value in ATTRIBUTES[a] if value != getattr(thing, a)] for a in attributes]
        found += [thing._replace(**dict(zip(attributes, values, strict=True))) for values in product(*others)]
    return found


def _agreement(one: Thing, other: Thing) -> int:
    """Number of attributes that two things share."""
    return sum(a == b for a, b in zip(one, other, strict=True))


def other_things(thing: Thing, things: Sequence[Thing], rng: Random, count: int = NEGATIVES) -> list[Thing]:
    """Choose ``count`` different other things of the data set, for the trivial level."""
    found: dict[Thing, None] = {}
    while len(found) < count:
        other = rng.choice(things)
        if other != thing:
            found[other] = None
    return list(found)
