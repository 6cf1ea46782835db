"""Find the attributes and the head noun of a phrase, as places in the text where something else can stand."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from fgclip_fast.curate.lexicon import attributes
from fgclip_fast.curate.lexicon.attributes import Value
from fgclip_fast.curate.lexicon.nouns import Noun, nouns


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TOKEN = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*|[^\w\s]")
_LONGEST_VALUE = 3  # words
_LONG_EXPRESSION = 6
"""Words from which on "left" and "upper" tell a place: a "left hand" may be seen on the right."""

DETERMINERS = _set("a an the one his her its their this that each another every some")
"""Words that begin a noun chunk."""
_STOP = DETERMINERS | _set(
    """and or but with without of in on at by to for from into onto over under near beside behind between against along
    across around through during while as is are was were be been being has have had do does that which who whose
    where it they he she him them these those there if than then so not no up down out off next very made wearing
    holding carrying containing featuring showing covered filled surrounded attached used placed mounted above below
    inside outside"""
)
_PREDICATIVE = _set("is are was were be looks look appears appear painted colored coloured in")
_ADVERBS = _set("very mostly partly slightly mainly predominantly plain bright dark light")
_MADE = _set("made out built constructed woven carved crafted consisting")
GROUPS = _set("pair group bunch pile stack set row herd flock couple lot collection variety")
"""Nouns that stand before the "of" of what they are a group of."""
_PLACES_BEFORE = _set("the its his her their far upper lower top bottom to on")
_PLACES_AFTER = _set("of side corner hand half part edge end")
_MASS = _set(
    """bread rice cheese milk water grass furniture food meat butter sugar soup juice coffee tea wine beer hair snow
    clothing luggage jewelry pottery equipment cloth fabric paper wood metal sand fruit"""
)


class Slot(NamedTuple):
    """A place ``text[start:end]`` that names values of an attribute, or the head noun."""

    start: int
    end: int
    kind: str
    values: tuple[Value, ...] = ()
    noun: Noun | None = None


class Token(NamedTuple):
    """A word in lower case, or a punctuation mark, and its place ``text[start:end]``."""

    start: int
    end: int
    word: str


Found = list[tuple[int, int, tuple[Value, ...]]]
"""(first token, token behind the last, values) of words that name values of attributes."""


def tokens_of(text: str) -> list[Token]:
    """The words and punctuation marks of a text."""
    return [Token(match.start(), match.end(), match.group().lower()) for match in _TOKEN.finditer(text)]


def values_in(words: Sequence[str]) -> tuple[Found, dict[int, tuple[Value, ...]]]:
    """Find words that may name values of attributes, and the tokens that adjectives among them cover."""
    found: Found = []
    at = 0
    while at < len(words):
        length, values = _longest(words, at)
        if values:
            found.append((at, at + length, values))
        at += max(1, length)
    return found, {i: values for start, end, values in found for i in range(start, end) if _is_adjective(values)}


def slots_of(text: str) -> list[Slot]:
    """Find the attributes of a text, in order, and behind them its head noun if the lexicon has it."""
    return slots_in(tokens_of(text))


def slots_in(tokens: Sequence[Token]) -> list[Slot]:
    """The same of the tokens of a text."""
    words = [token.word for token in tokens]
    found, covered = values_in(words)
    slots = []
    for start, end, values in found:
        usable = tuple(value for value in values if _stands(value, words, start, end, covered))
        if usable:
            slots.append(Slot(tokens[start].start, tokens[end - 1].end, usable[0].kind, usable))
    taken = {slot.start for slot in slots}
    head = _head(words, covered, {i for i, token in enumerate(tokens) if token.start in taken})
    if head is not None:
        start, end, noun = head
        slots.append(Slot(tokens[start].start, tokens[end].end, "noun", (), noun))
    return slots


@lru_cache(maxsize=1)
def table() -> dict[str, tuple[Value, ...]]:
    """The values of attributes by their words, read once in a process."""
    return attributes.values()


@lru_cache(maxsize=1)
def _first_words() -> frozenset[str]:
    """The words that values of attributes begin with."""
    return frozenset(name.split()[0] for name in table())


def _longest(words: Sequence[str], at: int) -> tuple[int, tuple[Value, ...]]:
    if words[at].partition("-")[0] not in _first_words():
        return 0, ()
    for length in range(min(_LONGEST_VALUE, len(words) - at), 0, -1):
        name = " ".join(words[at : at + length]).replace("-", " ")
        if name in table():
            return length, table()[name]
    return 0, ()


def _is_adjective(values: Sequence[Value]) -> bool:
    return any(value.form == "adjective" for value in values)


def _is_material(values: Sequence[Value]) -> bool:
    return any(value.kind == "material" for value in values)


def _stands(value: Value, words: Sequence[str], start: int, end: int, covered: Mapping[int, Sequence[Value]]) -> bool:
    """True if the words are used as this value: not the "orange" that is eaten, nor the "left" of "he left"."""
    before, after = words[start - 1] if start else "", words[end] if end < len(words) else ""
    if value.form == "spatial":
        return _tells_a_place(value, words, before, after)
    if value.kind == "action":
        following = nouns().find(after) if after.isalpha() else None
        acts = following is not None and nouns().can_act(following.lemma) and value.form == "sitting"
        return is_stop(after) or (acts and before in DETERMINERS)
    first, last = start, end
    while last < len(words) and (last in covered or (words[last] in ("and", ",", "or") and last + 1 in covered)):
        last += 1
    while first and (first - 1 in covered or words[first - 1] in ("and", ",") or words[first - 1] in _ADVERBS):
        first -= 1
    ends_chunk = last == len(words) or is_stop(words[last])
    made_of = first >= 2 and words[first - 1] in ("of", "from") and words[first - 2] in _MADE
    if value.kind == "material" and ends_chunk and last == end and made_of:
        return value.form == "noun"
    if value.form == "noun":
        return False
    if not ends_chunk:
        compound = None if end in covered else nouns().find(f"{' '.join(words[start:end])} {after}")
        return compound is None or not nouns().is_living_or_food(compound.lemma)
    # "a green stone": the last word is the noun of those before it.
    if last > end and _is_material(covered[last - 1]):
        return True
    return first > 0 and words[first - 1] in _PREDICATIVE and value.kind != "count"


def _tells_a_place(value: Value, words: Sequence[str], before: str, after: str) -> bool:
    if len(words) < _LONG_EXPRESSION:
        return False
    if value.dimension == "side":
        return before in _PLACES_BEFORE and (after in _PLACES_AFTER or is_stop(after))
    if value.dimension == "level":
        return after in ("left", "right", "half", "part", "corner", "side", "shelf")
    if value.dimension == "end":
        return before in ("the", "its") and (after in _PLACES_AFTER or is_stop(after)) and "on top of" not in words
    if value.dimension == "depth":
        return before == "the"
    return after in DETERMINERS or value.dimension == "front"


def is_stop(word: str) -> bool:
    """True for punctuation and for words that no noun chunk contains but at its beginning."""
    return not word[:1].isalpha() or word in _STOP


def _head(words: Sequence[str], covered: Mapping[int, Sequence[Value]], used: set[int]) -> tuple[int, int, Noun] | None:
    """Find the head noun: the last word of the first noun chunk, as (first token, last token, noun)."""
    start = 1 if words and words[0] in DETERMINERS else 0
    determined = start == 1 or any(map(is_number, words[:1]))
    end = start
    while end < len(words) and _belongs(words, end, covered):
        end += 1
    if end < len(words) and words[end - 1] in GROUPS and words[end] == "of":
        start = end + 1 + (end + 1 < len(words) and words[end + 1] in DETERMINERS)
        end = start
        while end < len(words) and _belongs(words, end, covered):
            end += 1
    last = end - 1
    if last < start or last in used:
        return None
    first, noun = last, nouns().find(words[last])
    if last > start and last - 1 not in covered:
        joined = nouns().find(f"{words[last - 1]} {words[last]}")
        if joined is not None or (noun is not None and nouns().find(words[last - 1]) is not None):
            first, noun = last - 1, joined or noun
    if noun is None or (noun.plural is None and not determined):
        return None
    if noun.lemma in _MASS and not (determined and words[0] == "the"):
        return None
    if noun.plural is None:
        noun = noun._replace(plural=words[0] not in ("a", "an", "one", "this", "that", "each", "another", "every"))
        if words[0] in ("the", "his", "her", "its", "their", "some"):
            return None
    return first, last, noun


def is_number(word: str) -> bool:
    """True for "two", "several" and the like."""
    return word in _of_kind("count")


def is_action(word: str) -> bool:
    """True for "sits", "sitting" and the like."""
    return word in _of_kind("action")


@lru_cache(maxsize=2)
def _of_kind(kind: str) -> frozenset[str]:
    return frozenset(name for name, values in table().items() if any(value.kind == kind for value in values))


def _belongs(words: Sequence[str], at: int, covered: Mapping[int, Sequence[Value]]) -> bool:
    """True if a word goes on the noun chunk."""
    word = words[at]
    if word in (",", "and"):
        return at + 1 in covered and at > 0 and at - 1 in covered
    begins = at == 0 or words[at - 1] in DETERMINERS
    if at in covered:
        # "a bucket full of sand" ends with its noun; "a wine glass" goes on.
        after_noun = not begins and at - 1 not in covered and nouns().find(words[at - 1]) is not None
        return _is_material(covered[at]) or not after_noun
    if not begins and is_action(word):
        return False
    if word.endswith(("ing", "ed")) and not begins:
        follows = words[at + 1] if at + 1 < len(words) else ""
        return nouns().find(word) is not None and follows not in DETERMINERS
    return not is_stop(word)
