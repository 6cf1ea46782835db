"""The result of an evaluation suite."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The result of one suite.

    Attributes:
        values: name → figure, as ``evaluation.json`` holds them. Shares lie in [0, 1]; figures that the data do not
            allow are left out, or NaN.
        asked: questions that the model answered, or images where the suite has no questions.
        skipped: cause → number of questions or records that could not be used.
    """

    values: dict[str, Any]
    asked: int
    skipped: dict[str, int] = field(default_factory=dict)
