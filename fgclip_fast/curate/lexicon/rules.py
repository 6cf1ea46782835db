"""Write negatives of a text by rules: other attributes in the place of the true ones, or another noun."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heappop
from itertools import combinations
from random import Random
from typing import Literal, NamedTuple

from fgclip_fast.curate.lexicon.attributes import KINDS, Value
from fgclip_fast.curate.lexicon.nouns import nouns
from fgclip_fast.curate.lexicon.phrase import Slot, slots_of, table

Level = Literal["mix", "hard", "medium", "easy", "trivial", "color", "material", "pattern", "transparency"]
"""``mix``: one to three attributes, as FineHARD's negatives. ``hard``, ``medium``, ``easy``: exactly one, two, three.
``trivial``: the text of another region. A kind of attribute: one attribute of this kind."""

NounSwaps = Literal["never", "fill", "bare"]
"""``never``: the noun stays. ``fill``: a share of the negatives, and all that attributes cannot fill, name another
noun. ``bare``: so do those of texts without an attribute. Both apply to the level ``mix`` only."""

CHANGES = {"mix": {1: 0.7, 2: 0.2, 3: 0.1}, "hard": {1: 1.0}, "medium": {2: 1.0}, "easy": {3: 1.0}}
"""Level → number of changed attributes → share of the negatives. The shares of ``mix`` are those of the scenes."""

NOUN_SHARE = 0.3
"""Share of a text's negatives that name another noun: those that its attributes would else have filled."""

_TRIES = 20
"""Draws for each negative that is wanted, before the search for different ones ends."""


class Negative(NamedTuple):
    """A negative and the kinds of what it changes, in the order of the text."""

    text: str
    kinds: tuple[str, ...]


class Swap(NamedTuple):
    """Another text for a slot, with the value of the attribute (None for a noun) and its weight."""

    words: str
    value: Value | None
    weight: float


class Rules:
    """Writes negatives.

    Args:
        counts: what the texts of the data set name, from :func:`count_values`. A value is drawn in proportion to its
            count + 1, so that the words of a negative do not betray it. None: all values alike, and nouns by the root
            of their count in WordNet's texts.
        others: texts of other regions, for the level ``trivial``.
        level: what negatives change.
        noun_swaps: when a negative may name another noun.
        noun_share: of the negatives of a text with attributes, the share that names another noun; 0: only those that
            attributes cannot fill.
        seed: of every choice; a negative depends on the seed, its place, the text and these arguments alone.
    """

    def __init__(
        self,
        counts: Mapping[str, int] | None = None,
        others: Sequence[str] = (),
        *,
        level: Level = "mix",
        noun_swaps: NounSwaps = "bare",
        noun_share: float = NOUN_SHARE,
        seed: int = 0,
    ) -> None:
        self._counts = counts
        self._others = others
        self._level: Level = level
        self._noun_swaps = noun_swaps
        self._noun_share = noun_share
        self._seed = seed
        self._drawn: dict[tuple[str, str, str], list[Swap]] = {}
        self._of_noun: dict[tuple[str, bool], list[Swap]] = {}
        spelled = {word: sum(n for name, n in (counts or {}).items() if word in name) for word in ("grey", "gray")}
        other_spelling = "grey" if spelled["gray"] > spelled["grey"] else "gray"
        for value in (value for each in table().values() for value in each):
            if value.drawn and other_spelling not in value.words:
                swap = Swap(value.words, value, self._weight(value.kind, value.words))
                self._drawn.setdefault((value.kind, value.dimension, value.form), []).append(swap)

    def negatives(self, text: str, place: str, count: int = 10) -> list[Negative]:
        """Write up to ``count`` different negatives of a text.

        Args:
            text: the positive.
            place: names the region, so that equal texts get different negatives.
            count: number wanted; fewer come back where the text has too few attributes.
        """
        rng = Random(f"{self._seed} {self._level} {place} {text}")
        slots = slots_of(text)
        if self._level == "trivial":
            return self._texts_of_others(text, slots, rng, count)
        attributes = [slot for slot in slots if slot.kind != "noun" and self._level in (*CHANGES, slot.kind)]
        options = [(slot, swaps) for slot in attributes if (swaps := self._swaps(slot, attributes))]
        may_name_another = self._level == "mix" and (
            self._noun_swaps == "bare" or (self._noun_swaps == "fill" and bool(options))
        )
        named = [slot for slot in slots if slot.kind == "noun"] if may_name_another else []
        # A fraction of a negative is drawn, so that the share holds over all texts for any count.
        kept_for_nouns = int(self._noun_share * count + rng.random()) if named and self._noun_share else 0
        found: dict[str, Negative] = {}
        if options:
            shares = CHANGES.get(self._level, {1: 1.0})
            self._change_attributes(text, options, shares, rng, count - kept_for_nouns, found)
        for noun in named:
            self._add(text, _shuffled([(noun, self._nouns(noun))], rng), count, found)
        negatives = list(found.values())
        # A reader of the first few finds the kinds mixed.
        return rng.sample(negatives, len(negatives)) if kept_for_nouns else negatives

    def _change_attributes(
        self,
        text: str,
        options: Sequence[tuple[Slot, Sequence[Swap]]],
        shares: Mapping[int, float],
        rng: Random,
        count: int,
        found: dict[str, Negative],
    ) -> None:
        """Add negatives with one or several changes; single changes are drawn without repetition."""
        numbers = [number for number in shares if number <= len(options)]
        if not numbers:
            return
        singles = _shuffled(options, rng)
        weights = [shares[number] for number in numbers]
        for _ in range(_TRIES * count):
            if len(found) == count:
                return
            number = rng.choices(numbers, weights)[0]
            if number == 1:
                changes = next(singles, None)
                if changes is None and len(numbers) == 1:
                    return
            else:
                chosen = [options[i] for i in sorted(rng.sample(range(len(options)), number))]
                drawn = [rng.choices(swaps, [swap.weight for swap in swaps])[0] for _, swaps in chosen]
                changes = list(zip((slot for slot, _ in chosen), drawn, strict=True))
            if changes is not None and _agree(changes):
                self._add(text, iter([changes]), count, found)

    @staticmethod
    def _add(text: str, candidates: Iterator[list[tuple[Slot, Swap]]], count: int, found: dict[str, Negative]) -> None:
        for changes in candidates:
            if len(found) >= count:
                return
            written = rewrite(text, [(slot.start, slot.end, swap.words) for slot, swap in changes])
            if written.lower() != text.lower():
                found.setdefault(written, Negative(written, tuple(slot.kind for slot, _ in changes)))

    def _swaps(self, slot: Slot, attributes: Sequence[Slot]) -> list[Swap]:
        """The values that contradict a slot, and every other value that the text names in the same dimension."""
        swaps: list[Swap] = []
        for value in slot.values:
            named = [
                other.shades
                for attribute in attributes
                for other in attribute.values
                if (other.kind, other.dimension) == (value.kind, value.dimension)
            ]
            taken = frozenset().union(*named)
            drawn = self._drawn.get((value.kind, value.dimension, value.form), ())
            swaps += [swap for swap in drawn if swap.value and swap.value.shades.isdisjoint(taken)]
        return swaps

    def _nouns(self, slot: Slot) -> list[Swap]:
        assert slot.noun is not None
        name = slot.noun.lemma, bool(slot.noun.plural)
        if name not in self._of_noun:
            self._of_noun[name] = [
                Swap(nouns().plural(lemma) if slot.noun.plural else lemma, None, self._weight("noun", lemma))
                for lemma in nouns().contradicting(slot.noun.lemma)
            ]
        return self._of_noun[name]

    def _weight(self, kind: str, words: str) -> float:
        if self._counts is not None:
            return self._counts.get(f"{kind} {words}", 0) + 1
        return math.sqrt(nouns().drawn.get(words, 1))

    def _texts_of_others(self, text: str, slots: Sequence[Slot], rng: Random, count: int) -> list[Negative]:
        """Draw texts of other regions whose head noun contradicts that of this one."""
        mine = next((slot.noun for slot in slots if slot.noun), None)
        found: dict[str, Negative] = {}
        if mine is None or not self._others:
            return []
        for _ in range(_TRIES * count):
            other = rng.choice(self._others)
            noun = next((slot.noun for slot in slots_of(other) if slot.noun), None)
            if noun is not None and other != text and not nouns().related(mine.lemma, noun.lemma):
                found.setdefault(other, Negative(other, ("text",)))
            if len(found) == count:
                break
        return list(found.values())


def count_values(texts: Sequence[str]) -> Counter[str]:
    """Count what texts name, as ``kind words``: values of attributes, and nouns in the singular."""
    counts: Counter[str] = Counter()
    for text in texts:
        for slot in slots_of(text):
            names = {slot.noun.lemma} if slot.noun else {value.words for value in slot.values}
            counts.update(f"{slot.kind} {words}" for words in names)
    return counts


def rewrite(text: str, changes: Sequence[tuple[int, int, str]]) -> str:
    """Put other words in places of a text; "a" and "an" before them and a capital letter are kept right.

    Args:
        text: the text.
        changes: (start, end, words), in the order of the text, without overlap.
    """
    for start, end, words in reversed(sorted(changes)):
        before = text[:start]
        article = before.rstrip().rpartition(" ")[2].lower()
        if article in ("a", "an") and before.endswith(" "):
            kept = before[: len(before.rstrip()) - len(article)]
            first = before.rstrip()[-len(article)]
            before = f"{kept}{first}{'n' if sounds_like_vowel(words) else ''} "
        if text[start].isupper():
            words = words[0].upper() + words[1:]
        text = before + words + text[end:]
    return text


def sounds_like_vowel(words: str) -> bool:
    """True if "an" stands before words: "an orange", "a unicorn", "an hour"."""
    word = words.lower()
    if word.startswith(("hour", "honest", "honor", "heir")):
        return True
    return word[:1] in "aeiou" and not word.startswith(("uni", "use", "usu", "eu", "one", "once", "ewe", "ufo", "uk"))


def _agree(changes: Sequence[tuple[Slot, Swap]]) -> bool:
    """True if no two new values of a dimension name the same: not "red and red"."""
    values = [swap.value for _, swap in changes if swap.value is not None]
    return not any(
        one.kind == other.kind and one.dimension == other.dimension and one.shades & other.shades
        for one, other in combinations(values, 2)
    )


def _shuffled(options: Sequence[tuple[Slot, Sequence[Swap]]], rng: Random) -> Iterator[list[tuple[Slot, Swap]]]:
    """Yield each single change once, in a random order by weight; all slots have the same share."""
    keyed = []
    for number, (_, swaps) in enumerate(options):
        total = sum(swap.weight for swap in swaps)
        # rng.expovariate without its call; few of the many are taken, so a heap is sorted no further than that.
        keyed += [(-math.log(1.0 - rng.random()) / (swap.weight / total), number, i) for i, swap in enumerate(swaps)]
    heapify(keyed)
    while keyed:
        _, number, i = heappop(keyed)
        slot, swaps = options[number]
        yield [(slot, swaps[i])]


ALL_KINDS = (*KINDS, "noun", "text")
"""Kinds of changes in the order of reports; ``text`` is the whole text, at the level ``trivial``."""
