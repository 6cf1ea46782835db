"""The result of an evaluation suite."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgclip_fast.evaluation.pictures import Pictures

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


def by_image(images: Iterable[object], right: Iterable[int], asked: Iterable[int]) -> dict[str, tuple[int, int]]:
    """Add up right answers and questions of each image; one without questions is left out.

    Args:
        images: their names; a name may come several times.
        right: right answers, for each name that comes.
        asked: questions, likewise.
    """
    sums: dict[str, tuple[int, int]] = {}
    for image, r, a in zip(images, right, asked, strict=True):
        if a:
            before = sums.get(str(image), (0, 0))
            sums[str(image)] = (before[0] + r, before[1] + a)
    return sums


def counted(causes: Counter[str]) -> dict[str, int]:
    """The causes that occurred, by name."""
    return {cause: count for cause, count in sorted(causes.items()) if count}


def origin(path: Path, files: Pictures | None = None) -> dict[str, Any]:
    """Describe what questions are read from: a file by a hash of its content, a folder by one of the names in it.

    Args:
        path: the file or folder.
        files: the images that were sought for the questions.

    Returns:
        ``{"file": its path, "sha256": the first 16 digits}``, and ``"found by"``, the number of images by the way in
        which they were found.
    """
    if path.is_file():
        digest = hashlib.sha256(path.read_bytes())
    else:
        digest = hashlib.sha256("\n".join(sorted(str(one.relative_to(path)) for one in path.rglob("*"))).encode())
    found = {} if files is None else {"found by": dict(sorted(files.ways.items()))}
    return {"file": str(path), "sha256": digest.hexdigest()[:16], **found}
