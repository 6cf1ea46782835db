"""Writes the embedded data set: shards in the format of users' own data, and questions about the validation scenes."""

import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import numpy as np

from fgclip_fast.data.processes import cores, in_order
from fgclip_fast.data.shards import ShardWriter
from fgclip_fast.scenes.compose import Scene, compose, render
from fgclip_fast.scenes.describe import record
from fgclip_fast.scenes.grammar import ATTRIBUTES, COLOURS, HELD_OUT, NOUNS, Thing
from fgclip_fast.scenes.levels import write_levels

T = TypeVar("T")

SHARD = 250
"""Scenes in a shard."""

UNSEEN = 0.75
"""Share of the things in validation scenes whose pair of noun and colour is held out of training."""

_SPLITS = {"train": 0, "val": 1}
_PAIRS = {
    True: sorted(HELD_OUT),
    False: [(noun, colour) for noun in NOUNS for colour in COLOURS if (noun, colour) not in HELD_OUT],
}


def write_scenes(
    directory: Path, *, train: int = 12000, val: int = 400, seed: int = 0, workers: int | None = None
) -> None:
    """Write ``train-*.tar``, ``val-*.tar`` and ``levels/``, and last the file ``_complete``.

    Equal arguments give equal files, whatever the number of workers. Existing files of these names are replaced. If
    ``_complete`` shows that they come from the same arguments and code, nothing is done.

    Args:
        directory: made if it is missing.
        train: number of scenes to train on; they show no held-out pair.
        val: number of scenes to validate on; most of their things have held-out pairs.
        seed: of everything random.
        workers: processes that draw; None: one for each core that this process may use.

    Raises:
        ValueError: the validation scenes show too few different things to ask questions about.
    """
    directory = Path(directory)
    marker, identity = directory / "_complete", _identity(train=train, val=val, seed=seed)
    if marker.exists() and marker.read_text() == identity:
        return
    _clear(directory)
    shards = [
        (split, number, range(start, min(start + SHARD, count)))
        for split, count in (("train", train), ("val", val))
        for number, start in enumerate(range(0, count, SHARD))
    ]
    tasks = ((directory, seed, *shard) for shard in shards)
    for _ in in_order(_write_shard, tasks, max(1, min(workers or cores(), len(shards))), "scenes"):
        pass
    named = [(f"{_key('val', i)}.jpg", scene_of("val", i, seed)) for i in range(val)]
    write_levels(directory / "levels", named, seed)
    marker.write_text(identity)


def scene_of(split: str, i: int, seed: int = 0) -> Scene:
    """Compose scene ``i`` of a split ("train" or "val"); it depends on the three arguments alone."""
    rng = np.random.default_rng((seed, _SPLITS[split], i))
    things: list[Thing] = []
    count = rng.choice((2, 3, 4), p=(0.2, 0.3, 0.5))
    while len(things) < count:
        noun, colour = _pick(_PAIRS[split == "val" and rng.uniform() < UNSEEN], rng)
        # No pair occurs twice, so that "the red mug" in a caption is one thing.
        if all((noun, colour) != thing.pair for thing in things):
            attributes = {name: _pick(values, rng) for name, values in ATTRIBUTES.items()}
            things.append(Thing(**(attributes | {"noun": noun, "colour": colour})))
    return compose(things, (seed, _SPLITS[split], i))


def jpeg(scene: Scene) -> bytes:
    """Render a scene as a JPEG file."""
    buffer = io.BytesIO()
    render(scene).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def record_of(scene: Scene, split: str, i: int, seed: int = 0) -> dict[str, Any]:
    """Describe scene ``i`` of a split, as in its shard."""
    return record(scene, f"scenes/{split}/{_key(split, i)}.jpg", Random(f"{seed} {split} {i}"))


def _write_shard(directory: Path, seed: int, split: str, number: int, scenes: range) -> None:
    with ShardWriter(directory / f"{split}-{number:05d}.tar") as shard:
        for i in scenes:
            scene, key = scene_of(split, i, seed), _key(split, i)
            image = jpeg(scene)
            shard.write(key, jpg=image, json=json.dumps(record_of(scene, split, i, seed)).encode())
            if split == "val":
                path = directory / "levels" / "images" / f"{key}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image)


def _pick(values: Sequence[T], rng: np.random.Generator) -> T:
    return values[int(rng.integers(len(values)))]


def _key(split: str, i: int) -> str:
    return f"{_SPLITS[split]}{i:07d}"


def _identity(**arguments: int) -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return json.dumps({"code": code, **arguments})


def _clear(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "_complete").unlink(missing_ok=True)
    for path in (*directory.glob("train-*.tar*"), *directory.glob("val-*.tar*")):
        path.unlink()
    shutil.rmtree(directory / "levels", ignore_errors=True)
