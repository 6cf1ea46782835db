"""Questions at FG-OVD's levels, and one kind for each single attribute, in FG-OVD's format.

Each is asked for pairs of noun and colour that training has seen and for those it never read of. Levels of one
attribute have as many negatives as the attribute has other values, ten at most: chance is 1 of 11 for hard, medium,
easy, trivial, noun and bare-noun, 1 of 10 for colour, 1 of 3 for pattern and finish, 1 of 2 for size.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from fgclip_fast.scenes.compose import SIDE, Placed, Scene
from fgclip_fast.scenes.grammar import HELD_OUT, NOUNS, Thing, phrase
from fgclip_fast.scenes.negatives import NEGATIVES, level, others, single

MARGIN = 3.0
"""Each side of a question's box moves out by up to so many pixels, as in training: a tight box would tell the size."""

CHANGES = {"hard": 1, "medium": 2, "easy": 3}
TEST_TYPES = {"hard": "1_attributes", "medium": "2_attributes", "easy": "3_attributes", "trivial": "shuffle_negatives"}
LEVELS = ("hard", "medium", "easy", "trivial", "colour", "pattern", "finish", "size", "noun", "bare-noun")


def write_levels(folder: Path, scenes: Sequence[tuple[str, Scene]], seed: int) -> None:
    """Writes ``unseen/LEVEL.jsonl`` and ``seen/LEVEL.jsonl``.

    Args:
        folder: where the two folders go.
        scenes: file name of the image, relative to the image folder, and what is in it.
        seed: of the draws.

    Raises:
        ValueError: fewer different things than a question of the trivial level has texts.
    """
    things = [placed.thing for _, scene in scenes for placed in scene.placed]
    if scenes and len(set(things)) <= NEGATIVES:
        raise ValueError(
            f"scenes: questions need more than {NEGATIVES} different things, got {len(set(things))} in {len(scenes)} "
            "validation scenes; write more of these"
        )
    for name in LEVELS:
        draw, form = _kind(name, things)
        lines: dict[str, list[str]] = {"unseen": [], "seen": []}
        for image, (path, scene) in enumerate(scenes):
            for i, placed in enumerate(scene.placed):
                rng = Random(f"{seed} {name} {image} {i}")
                question = _question(path, image, placed, draw(placed.thing, rng), form, rng)
                question |= {"sent_id": sum(map(len, lines.values())), "test_type": TEST_TYPES.get(name, name)}
                lines["unseen" if placed.thing.pair in HELD_OUT else "seen"].append(json.dumps(question))
        for kind, questions in lines.items():
            file = folder / kind / f"{name}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(line + "\n" for line in questions), encoding="utf-8")


def _kind(name: str, things: Sequence[Thing]) -> tuple[Callable[[Thing, Random], list[Thing]], tuple[str, ...]]:
    """How a level draws its negatives, and what its texts name."""
    if name in CHANGES:
        return lambda thing, rng: level(thing, CHANGES[name], rng), Thing._fields
    if name == "trivial":
        return lambda thing, rng: others(thing, things, rng), Thing._fields
    if name == "bare-noun":
        return lambda thing, rng: single(thing, "noun", rng), ("noun",)
    return lambda thing, rng: single(thing, name, rng), Thing._fields


def _question(
    path: str, image: int, placed: Placed, negatives: Sequence[Thing], form: tuple[str, ...], rng: Random
) -> dict[str, Any]:
    left, top, right, bottom = placed.box
    left, top = (max(0.0, edge - rng.uniform(0, MARGIN)) for edge in (left, top))
    right, bottom = (min(float(SIDE), edge + rng.uniform(0, MARGIN)) for edge in (right, bottom))
    return {
        "img_path": path,
        "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
        "pos_expression": [phrase(placed.thing, form)],
        "neg_expression": [phrase(other, form) for other in negatives],
        "category_id": NOUNS.index(placed.thing.noun),
        "neg_category_ids": [NOUNS.index(other.noun) for other in negatives],
        "width": SIDE,
        "height": SIDE,
        "image_id": image,
    }
