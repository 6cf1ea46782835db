"""The result of an evaluation suite."""

from dataclasses import dataclass, field
from typing import Any

Outcomes = dict[str, dict[str, tuple[int, int]]]
"""Figure → image → (right answers, questions): what a share is a mean of."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The result of one suite.

    Attributes:
        values: name → figure, as ``evaluation.json`` holds them. Shares lie in [0, 1]; figures that the data do not
            allow are left out, or NaN.
        asked: questions that the model answered, or images where the suite has no questions.
        skipped: cause → number of questions or records that could not be used.
        data: what the questions are read from; two results are of the same data if these are equal.
        protocol: how they are asked and counted, in a sentence.
        outcomes: the right answers behind each share, image by image; two models are compared by them.
    """

    values: dict[str, Any]
    asked: int
    skipped: dict[str, int] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    protocol: str = ""
    outcomes: Outcomes = field(default_factory=dict)
