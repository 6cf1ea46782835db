"""Tell by the lexicon whether a negative is true of its positive after all."""

from functools import lru_cache

from fgclip_fast.curate.lexicon.nouns import nouns
from fgclip_fast.curate.lexicon.phrase import DETERMINERS, Slot, slots_in, slots_of, tokens_of

_LINKS = frozenset(["of", "with", "in", "on", "at", "and", "made", "is", "that", "which", "are", "from"])


def is_true_of(text: str, negative: str) -> bool:
    """True if a negative says nothing that contradicts the text: "a crimson mug" of "a red mug", or "a mug".

    A word that the lexicon does not know may contradict, so only texts whose other words the positive has too are
    judged true. A new attribute, such as stripes where the text tells no pattern, counts as a contradiction.
    """
    own, read_otherwise = _read(text)
    others, unread = _read(negative)
    if unread - read_otherwise - DETERMINERS - _LINKS:
        return False
    return all(_agrees(other, own) for other in others)


def _agrees(other: Slot, own: list[Slot]) -> bool:
    """True if something that the positive says may be called this."""
    if other.noun is not None:
        mine = next((slot.noun for slot in own if slot.noun is not None), None)
        if mine is None or (mine.plural is not other.noun.plural and None not in (mine.plural, other.noun.plural)):
            return False
        return nouns().may_name_one_thing(mine.lemma, other.noun.lemma)
    said = [value for slot in own for value in slot.values]
    return any(
        (value.kind, value.dimension) == (theirs.kind, theirs.dimension) and value.shades & theirs.shades
        for value in other.values
        for theirs in said
    )


@lru_cache(maxsize=256)
def _read(text: str) -> tuple[list[Slot], set[str]]:
    """The slots of a text, and the words that no slot covers."""
    tokens = tokens_of(text)
    slots = slots_in(tokens)
    covered = {at for slot in slots for at in range(slot.start, slot.end)}
    return slots, {token.word for token in tokens if token.word.isalnum() and token.start not in covered}


def changed_kinds(text: str, negative: str) -> tuple[str, ...]:
    """The kinds of what a negative changes, such as ``("color",)``; none if its wording is another."""
    own, others = slots_of(text), slots_of(negative)
    if [slot.kind for slot in own] != [slot.kind for slot in others]:
        return ()
    return tuple(
        mine.kind
        for mine, other in zip(own, others, strict=True)
        if text[mine.start : mine.end].lower() != negative[other.start : other.end].lower()
    )
