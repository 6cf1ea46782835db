"""Questions about the validation scenes, in FG-OVD's format: FG-OVD's four levels, and one level for each attribute.

Every level has two files: ``seen`` for pairs of noun and colour that occur in training, ``unseen`` for held-out pairs.
A level of one attribute has as many negatives as the attribute has other values, up to ten. Chance is 1 of 11 for hard,
medium, easy, trivial, noun and bare-noun, 1 of 10 for colour, 1 of 3 for pattern and finish, and 1 of 2 for size.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from fgclip_fast.scenes.compose import SIDE, Placed, Scene
from fgclip_fast.scenes.grammar import HELD_OUT, NOUNS, Thing, phrase
from fgclip_fast.scenes.negatives import NEGATIVES, changing_attribute, changing_qualities, other_things

MARGIN = 3.0
"""Pixels by which each side of a question's box moves out, at most.

Training widens boxes in the same way: a tight box would tell the size of the thing.
"""

CHANGED_QUALITIES = {"hard": 1, "medium": 2, "easy": 3}
"""Level → attributes that each negative changes."""
TEST_TYPES = {"hard": "1_attributes", "medium": "2_attributes", "easy": "3_attributes", "trivial": "shuffle_negatives"}
"""Level → ``test_type`` of its lines, as in FG-OVD's files."""
LEVELS = ("hard", "medium", "easy", "trivial", "colour", "pattern", "finish", "size", "noun", "bare-noun")
"""All levels, in the order of reports."""


def write_levels(folder: Path, scenes: Sequence[tuple[str, Scene]], seed: int) -> None:
    """Write ``unseen/LEVEL.jsonl`` and ``seen/LEVEL.jsonl`` for every level.

    Args:
        folder: where ``unseen/`` and ``seen/`` are made.
        scenes: for each scene, the path of its image, relative to the image folder, and its contents.
        seed: of negatives and box margins.

    Raises:
        ValueError: there are fewer different things than a question of the trivial level has texts.
    """
    things = [placed.thing for _, scene in scenes for placed in scene.placed]
    if scenes and len(set(things)) <= NEGATIVES:
        raise ValueError(
            f"scenes: questions need more than {NEGATIVES} different things, got {len(set(things))} in {len(scenes)} "
            "validation scenes; pass a larger --val"
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
    """The function that chooses a level's negatives, and the attributes that its texts name."""
    if name in CHANGED_QUALITIES:
        return lambda thing, rng: changing_qualities(thing, CHANGED_QUALITIES[name], rng), Thing._fields
    if name == "trivial":
        return lambda thing, rng: other_things(thing, things, rng), Thing._fields
    if name == "bare-noun":
        return lambda thing, rng: changing_attribute(thing, "noun", rng), ("noun",)
    return lambda thing, rng: changing_attribute(thing, name, rng), Thing._fields


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
