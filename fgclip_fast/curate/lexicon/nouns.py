"""Nouns from WordNet: which a word names, whether two may be said of one thing, and which a negative may name."""

from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from fgclip_fast.curate.lexicon.drawn_nouns import DRAWN


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_HOME = Path(__file__).parent
_PLURAL_ONLY = _set(
    "scissors pants trousers jeans shorts glasses sunglasses goggles clothes binoculars headphones tongs pliers"
)
_ONE_FORM = _set("fish deer sheep")  # singular and plural are one word
_PLURALS = {"bus": "buses", "camera": "cameras", "taxi": "taxis", "potato": "potatoes", "tomato": "tomatoes"}
_SEXES = _set("man boy woman girl")


class Noun(NamedTuple):
    """A word of a text that names a noun of the lexicon."""

    lemma: str
    plural: bool | None
    """None where singular and plural are one word."""


class Nouns:
    """The nouns of ``nouns.tsv`` and ``plurals.tsv``, which :mod:`fgclip_fast.curate.lexicon.make_lexicon` makes."""

    def __init__(self) -> None:
        lines = (_HOME / "nouns.tsv").read_text(encoding="utf-8").splitlines()
        self._parents: list[tuple[int, ...]] = []
        self._synsets: dict[str, list[int]] = {}
        self._known: dict[str, tuple[str, ...]] = {}
        self._places: dict[str, _Place] = {}
        self._category: dict[str, set[str]] = {}
        self.drawn: dict[str, int] = {}
        for number, line in enumerate(lines):
            category, parents, lemmas = line.split("\t")
            self._parents.append(tuple(map(int, filter(None, parents.split(",")))))
            for entry in lemmas.split(","):
                lemma, _, weight = entry.partition(":")
                self._synsets.setdefault(lemma, []).append(number)
                self._category.setdefault(lemma, set()).add(category)
                if weight:
                    self.drawn[lemma] = int(weight)
        rows = (line.split("\t") for line in (_HOME / "plurals.tsv").read_text(encoding="utf-8").splitlines())
        self._irregular: dict[str, str] = {}
        for lemma, plural in rows:
            self._irregular.setdefault(plural, lemma)
        self._found = lru_cache(maxsize=2**16)(self._find)

    def find(self, word: str) -> Noun | None:
        """Find the noun that a word in lower case names; None if the lexicon does not have it."""
        return self._found(word)

    def _find(self, word: str) -> Noun | None:
        if word in _ONE_FORM:
            return Noun(word, None)
        if word in self._irregular:
            return Noun(self._irregular[word], True)
        if word.endswith("men") and f"{word[:-2]}an" in self._synsets:
            return Noun(f"{word[:-2]}an", True)
        endings = (("ies", "y"), ("es", ""), ("s", ""))
        for ending, singular in endings:
            lemma = word.removesuffix(ending) + singular
            if word.endswith(ending) and lemma in self._synsets and not word.endswith("ss"):
                return Noun(lemma, True)
        if word in self._synsets:
            return Noun(word, word in _PLURAL_ONLY)
        return None

    def is_living_or_food(self, lemma: str) -> bool:
        """True for animals, foods and plants: a "black bear" need not be black. An "old man" is a person too."""
        categories = self._category.get(lemma, set())
        return bool(categories & {"an", "fo", "pl"}) and "pe" not in categories

    def is_thing(self, lemma: str) -> bool:
        """True for what a box can be drawn around: animals, artifacts, persons, foods, plants, natural objects."""
        return bool(self._category.get(lemma, set()) & {"an", "ar", "pe", "fo", "pl", "ob"})

    @cached_property
    def _animals(self) -> frozenset[str]:
        return frozenset(lemma for lemma, categories in self._category.items() if categories & {"an", "pe"})

    def can_act(self, lemma: str) -> bool:
        """True if a sense of the lemma is an animal or a person."""
        return lemma in self._animals

    def plural(self, lemma: str) -> str:
        """The plural of a drawn noun."""
        if lemma in _ONE_FORM or lemma in _PLURAL_ONLY:
            return lemma
        if lemma in _PLURALS:
            return _PLURALS[lemma]
        if lemma.endswith("man"):
            return f"{lemma[:-2]}en"
        if lemma in self._plurals:
            return self._plurals[lemma]
        if lemma.endswith(("s", "sh", "ch", "x", "z")):
            return f"{lemma}es"
        if lemma.endswith("y") and lemma[-2] not in "aeiou":
            return f"{lemma[:-1]}ies"
        return f"{lemma}s"

    @cached_property
    def _plurals(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for plural, lemma in self._irregular.items():
            found.setdefault(lemma, plural)
        return found

    def may_name_one_thing(self, one: str, other: str) -> bool:
        """True if two nouns are synonyms in any sense, or one stands above the other in WordNet."""
        mine, others = self._above(one), self._above(other)
        return one == other or bool(mine.own & others.all or others.own & mine.all)

    def related(self, one: str, other: str) -> bool:
        """True if two nouns may name one thing: synonyms, one above the other in WordNet, siblings, or near in speech.

        All senses of both count, so that no reading of the true word makes the other true.
        """
        if self.may_name_one_thing(one, other) or frozenset((one, other)) <= _near(one):
            return True
        return bool(self._above(one).parents & self._above(other).parents)

    def contradicting(self, lemma: str) -> tuple[str, ...]:
        """The drawn nouns that cannot name the same thing as ``lemma``; a "child" or "cook" may be a man or a woman."""
        if lemma not in self._known:
            unsure = _SEXES if "pe" in self._category.get(lemma, ()) and lemma not in _SEXES else frozenset()
            found = (other for other in self.drawn if other not in unsure and not self.related(lemma, other))
            self._known[lemma] = tuple(found)
        return self._known[lemma]

    def _above(self, lemma: str) -> "_Place":
        if lemma in self._places:
            return self._places[lemma]
        own = frozenset(self._synsets.get(lemma, ()))
        found: set[int] = set()
        waiting = list(own)
        while waiting:
            synset = waiting.pop()
            if synset not in found:
                found.add(synset)
                waiting += self._parents[synset]
        parents = frozenset(parent for synset in own for parent in self._parents[synset])
        self._places[lemma] = _Place(own, parents, frozenset(found))
        return self._places[lemma]


class _Place(NamedTuple):
    """Synsets of a lemma, their hypernyms, and all above them, themselves included."""

    own: frozenset[int]
    parents: frozenset[int]
    all: frozenset[int]


@lru_cache(maxsize=4096)
def _near(lemma: str) -> frozenset[str]:
    """The drawn nouns that are near a noun in ordinary speech, itself included."""
    lines = (line.split() for text in DRAWN.values() for line in text.splitlines())
    return frozenset(noun for line in lines if lemma in line for noun in line)


@lru_cache(maxsize=1)
def nouns() -> Nouns:
    """The nouns, read once in a process."""
    return Nouns()
