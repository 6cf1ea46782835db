"""Right answers of two models to the same questions, image by image, and a confidence interval of the difference."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fgclip_fast.evaluation import fg_ovd
from fgclip_fast.evaluation.views import View
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.report.files import RunFiles, read_json
from fgclip_fast.scenes.locate import embedded
from fgclip_fast.whole_file import write_json

RESAMPLES = 2000
"""Bootstrap samples of the images."""
CACHE = "outcomes.json"
"""File in a run's folder that keeps its outcomes."""

Outcomes = dict[str, dict[str, tuple[int, int]]]
"""suite → image → (right answers, questions)."""


class Difference(NamedTuple):
    """Shares of right answers of two models, and the 95 % interval of their difference.

    Attributes:
        first, second: the shares.
        low, high: ends of the interval of first minus second.
        images: number of images that both models were asked about.
    """

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
        """True if the interval excludes zero."""
        return self.low > 0 or self.high < 0


def of_levels(model: FGCLIP, folder: Path) -> Outcomes:
    """Ask a model the questions of all levels of the embedded set; ``folder`` holds the levels."""
    found: Outcomes = {}
    for path in sorted(folder.glob("*seen/*.jsonl")):
        answers = fg_ovd.answer(model, path, folder / "images")
        pairs = ((line.image.name, rank == 0) for line, rank in zip(answers.lines, answers.ranks, strict=True))
        found[f"{path.parent.name}/{path.stem}"] = _by_image(pairs)
    return found


def cached(run: RunFiles, ask: Callable[[], Outcomes]) -> Outcomes:
    """Call ``ask``, or read its result of an earlier report on the same weights and the same embedded set."""
    path, key = run.path / CACHE, f"{run.weights and run.weights.name} {embedded().name}"
    saved = read_json(path)
    if saved.get("of") == key:
        return saved["outcomes"]
    found = ask()
    write_json(path, {"of": key, "outcomes": found}, indent=None)
    return found


def of_views(views: Sequence[View]) -> Outcomes:
    """Count a model's right answers to the questions about some images; boxes without negatives do not count."""
    pairs = [
        (view.image.name, view.best(i) == 0)
        for view in views
        for i, question in enumerate(view.image.questions)
        if len(question.texts) > 1
    ]
    return {"boxes with negatives": _by_image(pairs)} if pairs else {}


def difference(
    first: Mapping[str, tuple[int, int]], second: Mapping[str, tuple[int, int]], seed: int = 0
) -> Difference:
    """Compare two models on the images that both were asked about, by a paired bootstrap over images.

    Images are drawn with replacement, each with all its questions and both models' answers. The interval spans the
    middle 95 % of the resampled differences.

    Args:
        first, second: image → (right answers, questions).
        seed: of the resampling.
    """
    images = sorted(first.keys() & second.keys())
    right = np.array([[first[i][0], second[i][0]] for i in images], dtype=np.float64).reshape(-1, 2)
    asked = np.array([first[i][1] for i in images], dtype=np.float64)
    if not len(images):
        return Difference(0.0, 0.0, 0.0, 0.0, 0)
    counts = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)), RESAMPLES)
    differences = (counts @ (right[:, 0] - right[:, 1])) / (counts @ asked)
    low, high = np.quantile(differences, [0.025, 0.975])
    shares = right.sum(axis=0) / asked.sum()
    return Difference(float(shares[0]), float(shares[1]), float(low), float(high), len(images))


def _by_image(pairs: Iterable[tuple[str, bool]]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for image, right in pairs:
        before = found.get(image, (0, 0))
        found[image] = (before[0] + int(right), before[1] + 1)
    return found
