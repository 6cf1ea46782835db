"""Rules for the values of settings, which stand in the types of a dataclass's fields: ``width: Positive[int]``."""

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints


class Rule(NamedTuple):
    """A rule for a value: in words, for a message, and as a test."""

    words: str
    holds: Callable[[Any], bool]


T = TypeVar("T")
Positive = Annotated[T, Rule("> 0", lambda x: x > 0)]
Rate = Annotated[float, Rule("> 0 (--freeze holds weights still)", lambda x: x > 0)]
Share = Annotated[T, Rule("in (0, 1]", lambda x: 0 < x <= 1)]
ShareOrZero = Annotated[T, Rule("in [0, 1]", lambda x: 0 <= x <= 1)]
NotNegative = Annotated[T, Rule(">= 0", lambda x: x >= 0)]
BelowOne = Annotated[T, Rule("in [0, 1)", lambda x: 0 <= x < 1)]
Seed = Annotated[int, Rule("in [-2^63, 2^63)", lambda x: -(2**63) <= x < 2**63)]  # torch takes no more
Device = Annotated[str, Rule("auto, cpu, cuda or cuda:0", lambda x: re.fullmatch(r"auto|cpu|cuda(:\d+)?", x))]
# The figures of evaluation/records.py by which one checkpoint can be better than another.
Metric = Annotated[
    T,
    Rule(
        "hard_negative_top1, region_top1_in_image, phrase_top1_in_image, a recall such as long_image_to_text_r@1, or a "
        "loss",
        lambda x: re.fullmatch(
            r"hard_negative_top1|(region|phrase)_top1_in_image|(short|long)_(image_to_text|text_to_image)_r@(1|5|10)"
            r"|loss_(total|short|long|region|hard_negative)",
            x,
        ),
    ),
]
Every = Annotated[T, Rule(">= 0, or epoch", lambda x: x == "epoch" or x >= 0)]
MicroBatch = Annotated[T, Rule("> 0, or auto", lambda x: x == "auto" or x > 0)]
FilePath = Annotated[T, Rule("a path, not an empty word", bool)]  # Path("") is the current directory
Name = Annotated[T, Rule("a name, not an empty word", bool)]


def check(part: object, prefix: str = "") -> None:
    """Check each field of a dataclass by the rule in its type; None passes every rule.

    Raises:
        ValueError: a value that breaks its rule or is not finite; the message names ``prefix`` and the field.
    """
    for name, hint in get_type_hints(type(part), include_extras=True).items():
        rules = [rule for rule in getattr(hint, "__metadata__", ()) if isinstance(rule, Rule)]
        value = getattr(part, name)
        for one in value if isinstance(value, tuple) else (value,):
            for rule in rules if one is not None else ():
                require(rule.holds(one), f"{prefix}{name} must be {rule.words}", value)
            finite = not isinstance(one, float) or math.isfinite(one)
            require(finite, f"{prefix}{name} must be finite", value)


def divides(part: object, prefix: str, name: str, divisor: str) -> None:
    """Raise ValueError unless the field ``name`` is a multiple of the field ``divisor``."""
    whole, size = getattr(part, name), getattr(part, divisor)
    require(whole % size == 0, f"{prefix}{name} must be a multiple of {prefix}{divisor}", (whole, size))


def require(holds: object, rule: str, got: object) -> None:
    """Raise ValueError with ``rule`` and what was got, unless it holds."""
    if not holds:
        raise ValueError(f"{rule}, got {got if got != '' else repr(got)}")
