"""Says what is in a scene: captions, region expressions, and the FineHARD record of it all.

A colour always stands right before its noun, so that the pairs a text names can be read off it.
"""

from random import Random
from typing import Any

from fgclip_fast.scenes.compose import SIDE, Placed, Scene
from fgclip_fast.scenes.grammar import Thing, phrase
from fgclip_fast.scenes.negatives import contradictions

FORMS = {("noun",): 0.2, ("colour", "noun"): 0.15, Thing._fields: 0.65}
"""What a short region expression names, and how often."""

SURFACES = {
    "paper": "a sheet of rough paper",
    "clouds": "a cloudy backdrop",
    "wood": "an old wooden board",
    "tiles": "a tiled wall",
    "speckles": "speckled stone",
    "cloth": "a piece of woven cloth",
}
LOOKS = {
    "plain": "without any pattern", "striped": "with stripes", "dotted": "with dots",
    "matte": "a matte", "glowing": "a glowing", "snowy": "a snowy",
}  # fmt: skip


def record(scene: Scene, path: str, rng: Random) -> dict[str, Any]:
    """The scene's record in FineHARD's format; ten negatives a region, none of them with a held-out pair."""
    return {
        "f_path": path,
        "short_caption": short_caption(scene, rng),
        "caption": long_caption(scene, rng),
        "bbox_info": [_region(placed, rng) for placed in scene.placed],
    }


def _region(placed: Placed, rng: Random) -> dict[str, Any]:
    form = rng.choices(list(FORMS), list(FORMS.values()))[0]
    negatives = contradictions(placed.thing, form, rng)
    return {
        "bbox": [round(edge / SIDE, 5) for edge in placed.box],
        "short_expr": phrase(placed.thing, form),
        "long_expr": long_expression(placed, rng),
        "flag_short_neg": 1,
        "short_expr_negs": {str(i): text for i, text in enumerate(negatives)},
    }


def long_expression(placed: Placed, rng: Random) -> str:
    """Everything about the thing, in one of three wordings."""
    thing = placed.thing
    told = rng.randrange(3)
    if told == 0:
        return phrase(thing)
    if told == 1:
        return f"{phrase(thing)} in the {whereabouts(placed)} of the picture"
    return f"{LOOKS[thing.finish]} {thing.colour} {thing.noun} {LOOKS[thing.pattern]}, {thing.size} in size"


def short_caption(scene: Scene, rng: Random) -> str:
    """All things, and how two of them stand to each other where there are no more."""
    names = [phrase(p.thing, rng.choice((("colour", "noun"), Thing._fields))) for p in scene.placed]
    if len(names) == 2 and rng.random() < 0.7:
        return f"{names[0]} {relation(*scene.placed)} {names[1]}"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def long_caption(scene: Scene, rng: Random) -> str:
    """Each thing with its place, two relations, and what is behind them all; 60 to 110 tokens."""
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
    """How ``a`` stands to ``b``: the longer way between their middles decides."""
    dx, dy = (there - here for there, here in zip(b.centre, a.centre, strict=True))
    if abs(dx) > abs(dy):
        return "to the left of" if dx > 0 else "to the right of"
    return "above" if dy > 0 else "below"


def whereabouts(placed: Placed) -> str:
    """The quarter of the picture in which the middle of the thing lies."""
    x, y = placed.centre
    return f"{'upper' if y < SIDE / 2 else 'lower'} {'left' if x < SIDE / 2 else 'right'}"
