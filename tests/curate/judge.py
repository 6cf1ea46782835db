"""Judge the negatives of the phrases in ``phrases.txt``: ``python -m tests.curate.judge`` prints the figures.

Each negative is read again, by the rules' own parser and word lists, and compared with its phrase: that finds slips of
the rules, not gaps of the lists.
"""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from fgclip_fast.curate import Rules
from fgclip_fast.curate.lexicon.nouns import nouns
from fgclip_fast.curate.lexicon.phrase import slots_of

PHRASES = (Path(__file__).parent / "phrases.txt").read_text(encoding="utf-8").splitlines()
_NUMBERS = {"two", "three", "four", "five", "six", "seven", "eight"}
_ALSO_AN = ("hour", "heir", "honest")
_ALSO_A = ("uni", "use", "eu", "one")


class Verdict(NamedTuple):
    """Of one negative: the kinds that it changes, and what is wrong with it, empty if nothing is."""

    kinds: frozenset[str]
    not_false: str
    ungrammatical: str
    unread: bool = False
    """True if other slots are read in the negative, such as the black of "a black plate" for "a black swan"."""


def judge(text: str, negative: str) -> Verdict:
    """Judge a negative of a text."""
    own, others = slots_of(text), slots_of(negative)
    if [slot.kind for slot in own] != [slot.kind for slot in others]:
        return Verdict(frozenset(), "", _fault_of_grammar(negative), unread=True)
    changed = []
    for mine, other in zip(own, others, strict=True):
        if text[mine.start : mine.end].lower() == negative[other.start : other.end].lower():
            continue
        changed.append(mine.kind)
        if mine.noun and other.noun:
            if nouns().related(mine.noun.lemma, other.noun.lemma):
                return Verdict(frozenset(changed), f"{mine.noun.lemma} and {other.noun.lemma} are related", "")
        elif any(a.shades & b.shades for a in mine.values for b in other.values if a.dimension == b.dimension):
            return Verdict(frozenset(changed), f"{mine.values[0].words} may be {other.values[0].words}", "")
    return Verdict(frozenset(changed), "" if changed else "nothing changed", _fault_of_grammar(negative))


def _fault_of_grammar(text: str) -> str:
    words = re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())
    for article, word in pairwise(words):
        vowel = word.startswith(_ALSO_AN) or (word[0] in "aeiou" and not word.startswith(_ALSO_A))
        if article in ("a", "an") and (article == "an") != vowel:
            return f"{article} {word}"
    head = next((slot for slot in slots_of(text) if slot.noun), None)
    if head is None or head.noun.plural is None or " of " in text[: head.start]:
        return ""
    if words[0] in ("a", "an") and head.noun.plural:
        return f"{words[0]} {text[head.start : head.end]}"
    if words[0] in _NUMBERS and not head.noun.plural and head.noun.lemma not in ("sheep", "fish", "deer"):
        return f"{words[0]} {text[head.start : head.end]}"
    return ""


def main() -> None:
    """Print the figures by level and kind of attribute."""
    for level in ("mix", "hard"):
        rules = Rules(level=level, noun_swaps="bare")
        total, kinds, wrong = 0, Counter(), Counter()
        full = 0
        for number, text in enumerate(PHRASES):
            negatives = rules.negatives(text, str(number))
            full += len({negative.text.lower() for negative in negatives}) == 10
            for negative in negatives:
                verdict = judge(text, negative.text)
                total += 1
                kinds.update(set(negative.kinds))
                for name in ("not_false", "ungrammatical", "unread"):
                    if getattr(verdict, name):
                        wrong.update([name, *(f"{name} {kind}" for kind in set(negative.kinds))])
                        print(f"{text!r} -> {negative.text!r}: {verdict}")
        print(f"{level}: {len(PHRASES)} phrases, {full} with ten different negatives, {total} negatives,")
        print(f"  {wrong['not_false']} true by the lexicon, {wrong['ungrammatical']} ungrammatical,")
        print(f"  {wrong['unread']} in which other attributes are read")
        for kind, n in kinds.most_common():
            print(
                f"  {kind:13} {n:5}  true {wrong[f'not_false {kind}']}, ungrammatical {wrong[f'ungrammatical {kind}']}"
            )


if __name__ == "__main__":
    main()
