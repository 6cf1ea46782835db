"""Describes scenes: captions, region expressions, and records in FineHARD's format.

In every text a colour stands right before its noun, so that tests can read the pairs of noun and colour from it.
"""

from random import Random
from typing import Any

from fgclip_fast.scenes.compose import SIDE, Placed, Scene
from fgclip_fast.scenes.grammar import Thing, phrase
from fgclip_fast.scenes.negatives import training_negatives

FORMS = {("noun",): 0.2, ("colour", "noun"): 0.15, Thing._fields: 0.65}
"""Attributes that a short region expression names → share of the expressions."""

SURFACES = {
    "paper": "a sheet of rough paper",
    "clouds": "a cloudy backdrop",
    "wood": "an old wooden board",
    "tiles": "a tiled wall",
    "speckles": "speckled stone",
    "cloth": "a piece of woven cloth",
}
"""Background → its name in long captions."""
LOOKS = {
    "plain": "without any pattern", "striped": "with stripes", "dotted": "with dots",
    "matte": "a matte", "glowing": "a glowing", "snowy": "a snowy",
}  # fmt: skip
"""Pattern or finish → its words in long expressions."""


def record(scene: Scene, path: str, rng: Random) -> dict[str, Any]:
    """Write a scene's record in FineHARD's format, with ten negatives for each region, none with a held-out pair.

    Args:
        scene: the scene.
        path: the record's ``f_path``.
        rng: source of wordings and negatives.
    """
    return {
        "f_path": path,
        "short_caption": short_caption(scene, rng),
        "caption": long_caption(scene, rng),
        "bbox_info": [_region(placed, rng) for placed in scene.placed],
    }


def _region(placed: Placed, rng: Random) -> dict[str, Any]:
    form = rng.choices(list(FORMS), list(FORMS.values()))[0]
    negatives = training_negatives(placed.thing, form, rng)
    return {
        "bbox": [round(edge / SIDE, 5) for edge in placed.box],
        "short_expr": phrase(placed.thing, form),
        "long_expr": long_expression(placed, rng),
        "flag_short_neg": 1,
        "short_expr_negs": {str(i): text for i, text in enumerate(negatives)},
    }


def long_expression(placed: Placed, rng: Random) -> str:
    """All attributes of a thing, in one of three wordings."""
    thing = placed.thing
    told = rng.randrange(3)
    if told == 0:
        return phrase(thing)
    if told == 1:
        return f"{phrase(thing)} in the {whereabouts(placed)} of the picture"
    return f"{LOOKS[thing.finish]} {thing.colour} {thing.noun} {LOOKS[thing.pattern]}, {thing.size} in size"


def short_caption(scene: Scene, rng: Random) -> str:
    """The names of all things, or of two things and the relation between them."""
    names = [phrase(p.thing, rng.choice((("colour", "noun"), Thing._fields))) for p in scene.placed]
    if len(names) == 2 and rng.random() < 0.7:
        return f"{names[0]} {relation(*scene.placed)} {names[1]}"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def long_caption(scene: Scene, rng: Random) -> str:
    """The background, each thing with its place, and two relations; 60 to 110 tokens."""
    placed = rng.sample(scene.placed, len(scene.placed))
    count = {2: "two", 3: "three", 4: "four"}.get(len(placed), str(len(placed)))
    sentences = [f"A picture of {count} things in front of {SURFACES[scene.background]}."]
    for p in placed:
        verb = rng.choice(("there is", "you see", "one finds"))
        sentences.append(f"In the {whereabouts(p)} {verb} {phrase(p.thing)}.")
    pairs = [(a, b) for a in placed for b in placed if a is not b]
    for a, b in rng.sample(pairs, 2):
        sentences.append(
            f"The {a.thing.colour} {a.thing.noun} is {relation(a, b)} the {b.thing.colour} {b.thing.noun}."
        )
    if len(placed) == 2 or rng.random() < 0.4:
        sentences.append("The light falls from the upper left, and nothing else is to be seen.")
    return " ".join(sentences)


def relation(a: Placed, b: Placed) -> str:
    """The relation of ``a`` to ``b`` in words, along the axis on which their centres are further apart."""
    dx, dy = (there - here for there, here in zip(b.centre, a.centre, strict=True))
    if abs(dx) > abs(dy):
        return "to the left of" if dx > 0 else "to the right of"
    return "above" if dy > 0 else "below"


def whereabouts(placed: Placed) -> str:
    """The quarter of the scene in which the centre of a thing lies, in words."""
    x, y = placed.centre
    return f"{'upper' if y < SIDE / 2 else 'lower'} {'left' if x < SIDE / 2 else 'right'}"
