"""Two models on the same questions: what each got right, image by image, and how sure the difference is."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fgclip_fast.evaluation import fg_ovd
from fgclip_fast.evaluation.pictures import View
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.report.files import RunFiles
from fgclip_fast.scenes.locate import embedded

RESAMPLES = 2000
CACHE = "outcomes.json"

Outcomes = dict[str, dict[str, tuple[int, int]]]
"""suite → image → (right, asked)."""


class Difference(NamedTuple):
    """Shares of right answers of two models, their difference, and its 95 % interval."""

    first: float
    second: float
    low: float
    high: float
    images: int

    @property
    def value(self) -> float:
        """First minus second."""
        return self.first - self.second

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def of_levels(model: FGCLIP, folder: Path) -> Outcomes:
    """A model's answers to the embedded set's levels."""
    found: Outcomes = {}
    for path in sorted(folder.glob("*seen/*.jsonl")):
        answers = fg_ovd.evaluate(model, path, folder / "images")
        images = {q.line: q.image.name for q in fg_ovd.read(path, folder / "images", answers.skipped)}
        pairs = ((images[line], rank == 0) for line, rank in answers.ranks.items())
        found[f"{path.parent.name}/{path.stem}"] = _by_image(pairs)
    return found


def cached(run: RunFiles, ask: Callable[[], Outcomes]) -> Outcomes:
    """What ``ask`` answers, kept in the run's folder for these weights and this embedded set: it takes a minute."""
    path, key = run.path / CACHE, f"{run.weights and run.weights.name} {embedded().name}"
    if path.is_file():
        saved = json.loads(path.read_text())
        if saved["of"] == key:
            return saved["outcomes"]
    found = ask()
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"of": key, "outcomes": found}))
    partial.replace(path)
    return found


def of_views(views: Sequence[View]) -> Outcomes:
    """A model's answers to the questions about some pictures: boxes that have negatives."""
    pairs = [
        (view.picture.name, view.first(i) == 0)
        for view in views
        for i, asked in enumerate(view.picture.asked)
        if len(asked.texts) > 1
    ]
    return {"boxes with negatives": _by_image(pairs)} if pairs else {}


def difference(
    first: Mapping[str, tuple[int, int]], second: Mapping[str, tuple[int, int]], seed: int = 0
) -> Difference:
    """Compares two models on the images that both were asked about, by a paired bootstrap over images.

    Images are drawn with replacement, each with all its questions and both models' answers; the interval is that of
    the middle 95 % of the resampled differences.
    """
    images = sorted(first.keys() & second.keys())
    right = np.array([[first[i][0], second[i][0]] for i in images], dtype=np.float64).reshape(-1, 2)
    asked = np.array([first[i][1] for i in images], dtype=np.float64)
    if not len(images):
        return Difference(0.0, 0.0, 0.0, 0.0, 0)
    counts = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)), RESAMPLES)
    drawn = (counts @ (right[:, 0] - right[:, 1])) / (counts @ asked)
    low, high = np.quantile(drawn, [0.025, 0.975])
    shares = right.sum(axis=0) / asked.sum()
    return Difference(float(shares[0]), float(shares[1]), float(low), float(high), len(images))


def _by_image(pairs) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for image, right in pairs:
        before = found.get(image, (0, 0))
        found[image] = (before[0] + int(right), before[1] + 1)
    return found
