"""Two models on the same questions: the difference of each share, its interval, and a verdict."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fgclip_fast.evaluation.figures import Figures

RESAMPLES = 2000
"""Bootstrap samples of the images."""
FEWEST = 6
"""Images with another number of right answers that a verdict needs: by a sign test, fewer can be chance at 5 %."""

ByImage = Mapping[str, tuple[int, int]]
"""Image → (right answers, questions)."""


class Difference(NamedTuple):
    """Shares of right answers of two models, and the 95 % interval of their difference.

    Attributes:
        first, second: the shares.
        low, high: ends of the interval of first minus second.
        images: number of images that both models were asked about.
        changed: number of images of which the models have another number of answers right.
    """

    first: float
    second: float
    low: float
    high: float
    images: int
    changed: int

    @property
    def value(self) -> float:
        """First minus second."""
        return self.first - self.second

    @property
    def sure(self) -> bool:
        """True if the interval excludes zero, and enough images differ for it to mean something."""
        return self.changed >= FEWEST and (self.low > 0 or self.high < 0)

    @property
    def verdict(self) -> str:
        """``better`` or ``worse``, of the first model; ``no difference shown`` where zero is not excluded."""
        return "no difference shown" if not self.sure else "better" if self.value > 0 else "worse"


def difference(first: ByImage, second: ByImage, seed: int = 0) -> Difference:
    """Compare two models on the images that both were asked about, by a paired bootstrap over images.

    Images are drawn with replacement, each with all its questions and both models' answers. The interval spans the
    middle 95 % of the resampled differences. An image of which the models were asked another number of questions does
    not count.

    Args:
        first, second: image → (right answers, questions).
        seed: of the resampling.

    Source: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile interval).
    """
    images = [i for i in first.keys() & second.keys() if first[i][1] == second[i][1] > 0]
    if not images:
        return Difference(0.0, 0.0, 0.0, 0.0, 0, 0)
    right = np.array([[first[i][0], second[i][0]] for i in images], dtype=np.int64)
    asked = np.array([first[i][1] for i in images], dtype=np.int64)
    gained = right[:, 0] - right[:, 1]
    # Images of one kind (gain, questions) count alike, so drawing the kinds is drawing the images.
    kinds, number = np.unique(np.stack([gained, asked], axis=1), axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(images), number / len(images), RESAMPLES)
    low, high = np.quantile((drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1]), [0.025, 0.975])
    shares = right.sum(axis=0) / asked.sum()
    changed = int(np.count_nonzero(gained))
    return Difference(float(shares[0]), float(shares[1]), float(low), float(high), len(images), changed)


def compare(first: Figures, second: Figures) -> dict[str, Difference]:
    """Compare two models by each share of one suite, the suite's main figure first.

    Args:
        first, second: results of the same questions.

    Returns:
        Figure → difference, without those that the models have no image in common for.
    """
    own, other = first.outcomes, second.outcomes
    found = {name: difference(own[name], other[name]) for name in own if name in other}
    return {name: d for name, d in found.items() if d.images}


def described(differences: Mapping[str, Difference]) -> dict[str, Any]:
    """Give differences and the verdict of a suite as ``evaluation.json`` holds them.

    The verdict is that of the first figure: of many figures one differs by chance.
    """
    return {
        "verdict": next((d.verdict for d in differences.values()), "no difference shown"),
        "differences": {
            name: {
                "model": d.first,
                "against": d.second,
                "difference": d.value,
                "interval": [d.low, d.high],
                "images": d.images,
                "changed": d.changed,
                "verdict": d.verdict,
            }
            for name, d in differences.items()
        },
    }


def read(saved: Mapping[str, Any]) -> Difference:
    """Read one difference as :func:`described` gave it."""
    low, high = saved["interval"]
    return Difference(saved["model"], saved["against"], low, high, saved["images"], saved["changed"])
