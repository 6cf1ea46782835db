"""Negatives of a text without those that say the same as it, or as another."""

import unicodedata
from collections.abc import Iterable

from fgclip_fast.data.causes import EQUAL_NEGATIVE, REPEATED_NEGATIVE, Defect


def distinct(positive: str, negatives: Iterable[str]) -> tuple[tuple[str, ...], list[Defect]]:
    """Drop negatives equal to the positive or to an earlier negative; equal is told by the normal form.

    Returns:
        The others, in order, and a defect for each that was dropped.
    """
    own = normal_form(positive)
    kept: dict[str, str] = {}
    defects = []
    for negative in negatives:
        form = normal_form(negative)
        if form == own or form in kept:
            cause = EQUAL_NEGATIVE if form == own else REPEATED_NEGATIVE
            defects.append(Defect(cause, f"{positive:.80} / {negative:.80}"))
        else:
            kept[form] = negative
    return tuple(kept.values()), defects


def normal_form(text: str) -> str:
    """The text without differences that a reader does not see: case, white space, compatibility forms."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
