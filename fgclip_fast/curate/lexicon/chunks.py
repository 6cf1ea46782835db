"""Find noun chunks in captions: things that a detector can look for, with the words that describe them.

The lexicon decides what is a thing: a chunk ends with a noun of WordNet that is an animal, an artifact, a person, a
food, a plant or a natural object. "The atmosphere" and "a sense of calm", which a tagger finds too, are no such chunk.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fgclip_fast.curate.lexicon.attributes import Value
from fgclip_fast.curate.lexicon.nouns import Noun, nouns
from fgclip_fast.curate.lexicon.phrase import (
    DETERMINERS,
    GROUPS,
    Token,
    is_action,
    is_number,
    is_stop,
    tokens_of,
    values_in,
)
from fgclip_fast.curate.lexicon.rules import sounds_like_vowel


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SENTENCE = re.compile(r"[^.!?;:\n\"“”()]+")
_LONGEST = 8  # words of a chunk, its determiner not counted
_ATTACHED = 2  # chunks that a long phrase adds to the first
_LONGEST_PHRASE = 20  # words
# The picture itself, and places in it: no box is around them alone.
_NO_THING = _set(
    """picture image photo photograph scene view background foreground backdrop side left right top bottom front back
    corner edge middle center centre area part piece end surface space setting environment atmosphere light lighting
    shadow shade color colour pattern design detail style kind type number variety lot shot sky ground floor distance
    object thing item something nothing day night morning evening use upper lower overall rest variety past"""
)
_WITH = _set("with wearing holding carrying containing featuring riding pulling pushing eating drinking")
_AT = _set("of on in inside beside behind under above below near over against atop by from around along across")
_PLACES = (("next", "to"), ("in", "front", "of"), ("on", "top", "of"))
_SINGULAR = _set("a an one this that each another every")


class Phrase(NamedTuple):
    """What a caption says of one thing, or of several of a kind."""

    bare: str
    """The noun alone: "a mug"."""
    short: str
    """The noun and what stands before it: "a glossy red mug"."""
    long: str
    """Also what stands behind it: "a glossy red mug with a chipped rim"."""


class _Chunk(NamedTuple):
    start: int
    """Its first token, the determiner included."""
    end: int
    noun: int
    """First token of its noun, of one or two words."""
    name: Noun


def phrases_of(captions: Sequence[str], most: int) -> list[Phrase]:
    """The phrases of some captions of one image, in order.

    Args:
        captions: the texts.
        most: number of phrases.

    Returns:
        Phrases, each of another thing as far as words tell: of "a large red mug" and, later, "the mug", the first.
    """
    found: list[tuple[Noun, Phrase]] = []
    for sentence in (match.group() for caption in captions for match in _SENTENCE.finditer(caption)):
        for noun, phrase in _phrases(sentence):
            _add(noun, phrase, found)
    return [phrase for _, phrase in found[:most]]


def _add(noun: Noun, phrase: Phrase, found: list[tuple[Noun, Phrase]]) -> None:
    """Add a phrase unless it says less than one of the same noun; it replaces one that says less."""
    words = _content(phrase.short)
    for i, (other, known) in enumerate(found):
        if other.lemma == noun.lemma and bool(other.plural) == bool(noun.plural):
            theirs = _content(known.short)
            if words <= theirs or theirs < words:
                more = phrase if theirs < words else known
                longest = max((known.long, phrase.long), key=lambda text: len(_content(text)))
                keeps = _content(longest) >= _content(more.short)
                found[i] = noun, more._replace(long=longest if keeps else more.long)
                return
    found.append((noun, phrase))


def _content(text: str) -> frozenset[str]:
    return frozenset(text.lower().split()) - DETERMINERS


def _phrases(sentence: str) -> Iterator[tuple[Noun, Phrase]]:
    tokens = tokens_of(sentence)
    words = [token.word for token in tokens]
    _, covered = values_in(words)
    at = 0
    while at < len(words):
        chunk = _chunk(words, at, covered)
        if chunk is None:
            at += 1
            continue
        last = _extended(words, chunk, covered)
        texts = (_text(sentence, tokens, words, chunk, end) for end in (chunk.end, last))
        yield chunk.name, Phrase(_bare(sentence, tokens, words, chunk), *texts)
        at = chunk.end


def _chunk(words: Sequence[str], at: int, covered: Mapping[int, Sequence[Value]]) -> _Chunk | None:
    """The noun chunk that begins at a token: with a determiner or a number, or with a plural."""
    determined = words[at] in DETERMINERS or is_number(words[at])
    begin = at + 1 if determined else at
    if begin < len(words) and words[begin] in GROUPS and words[begin + 1 : begin + 2] == ["of"]:
        inner = _chunk(words, begin + 2, covered) if begin + 2 < len(words) else None
        return None if inner is None else inner._replace(start=at)
    if begin and not determined and words[begin - 1][-1:].isalpha() and not is_stop(words[begin - 1]):
        return None  # in the middle of a chunk, or behind a verb
    longest = end = _run(words, begin, covered)
    while end > begin:
        name = _noun(words, begin, end, covered)
        # "a green label" has no noun "green", though the lexicon may lack labels.
        is_cut = end < longest and end - 1 in covered
        if name is not None and not is_cut and _agrees(words, at, end, name[1], determined):
            return _Chunk(at, end, *name)
        end -= 1
    return None


def _run(words: Sequence[str], begin: int, covered: Mapping[int, Sequence[Value]]) -> int:
    """The token behind the words that may form a chunk from ``begin`` on."""
    end = begin
    while end < min(len(words), begin + _LONGEST) and _goes_on(words, begin, end, covered):
        end += 1
    return end


def _goes_on(words: Sequence[str], begin: int, at: int, covered: Mapping[int, Sequence[Value]]) -> bool:
    """True if a word may belong to the chunk from ``begin`` on."""
    word = words[at]
    if word in (",", "and"):
        return at - 1 in covered and at + 1 in covered and at > begin
    if (is_stop(word) and at not in covered) or is_number(word):
        return False
    if at == begin or at in covered:
        return True
    if is_action(word):
        return False
    if at - 1 in covered or nouns().find(words[at - 1]) is None:
        return True  # "a brightly colored parrot"
    after = words[at + 1] if at + 1 < len(words) else ""
    named = nouns().find(word)
    if word.endswith(("ing", "ed")):  # "a boy throwing a ball"; but "a stone building"
        return named is not None and after not in DETERMINERS
    is_verb = named is not None and named.plural is True and _begins(words, at + 1, covered)
    return not is_verb  # "a man watches television"


def _begins(words: Sequence[str], at: int, covered: Mapping[int, Sequence[Value]]) -> bool:
    """True if a noun chunk may begin at a token."""
    if at >= len(words):
        return False
    word = words[at]
    return word in DETERMINERS or is_number(word) or at in covered or nouns().find(word) is not None


def _noun(
    words: Sequence[str], begin: int, end: int, covered: Mapping[int, Sequence[Value]]
) -> tuple[int, Noun] | None:
    """The first token and the noun that end a chunk, if it is a thing."""
    last = words[end - 1]
    if last in ("person", "people"):  # above the nouns of the lexicon
        return end - 1, Noun("person", last == "people")
    joined = nouns().find(f"{words[end - 2]} {last}") if end - 2 >= begin and end - 2 not in covered else None
    found = joined or nouns().find(last)
    if found is None or not nouns().is_thing(found.lemma) or last in _NO_THING or found.lemma in _NO_THING:
        return None
    return (end - 2 if joined else end - 1), found


def _agrees(words: Sequence[str], start: int, end: int, noun: Noun, determined: bool) -> bool:
    """True if the number of a noun fits its determiner; without one it must be a plural that is no verb."""
    if not determined:
        return noun.plural is True and (end == len(words) or words[end] not in DETERMINERS)
    if words[start] in _SINGULAR:
        return noun.plural is not True
    return noun.plural is not False or not is_number(words[start])


def _extended(words: Sequence[str], chunk: _Chunk, covered: Mapping[int, Sequence[Value]]) -> int:
    """The token behind a chunk and the chunks that describe it: "with a chipped rim", "lying on a red carpet"."""
    end = chunk.end
    for _ in range(_ATTACHED):
        start = _connected(words, end)
        if start is None or start >= len(words):
            break
        begin = start + (words[start] in DETERMINERS or is_number(words[start]))
        after = _run(words, begin, covered)
        if after == begin or after - chunk.start > _LONGEST_PHRASE:
            break
        end = after
    return end


def _connected(words: Sequence[str], at: int) -> int | None:
    """The token behind the words that join a chunk to the next one; None: nothing joins them."""
    if at + 1 < len(words) and words[at].endswith(("ing", "ed", "made")) and words[at] not in _WITH:
        at += 1  # "lying on", "perched on", "made of"
    for place in _PLACES:
        if tuple(words[at : at + len(place)]) == place:
            return at + len(place)
    if at < len(words) and (words[at] in _WITH or words[at] in _AT):
        return at + 1
    return None


def _bare(sentence: str, tokens: Sequence[Token], words: Sequence[str], chunk: _Chunk) -> str:
    name = _lower(sentence[tokens[chunk.noun].start : tokens[chunk.end - 1].end])
    group = next((words[i] for i in range(chunk.start, chunk.noun) if words[i] in GROUPS), None)
    return f"{_with_article(group, None)} of {name}" if group else _with_article(name, chunk.name)


def _text(sentence: str, tokens: Sequence[Token], words: Sequence[str], chunk: _Chunk, end: int) -> str:
    """The words of a chunk with "a", "an" or no article in the place of another determiner."""
    start = chunk.start
    if is_number(words[start]) or words[start] not in DETERMINERS:
        return _lower(sentence[tokens[start].start : tokens[end - 1].end])
    text = sentence[tokens[start + 1].start : tokens[end - 1].end]
    return _with_article(text, None if words[start + 1] in GROUPS else chunk.name)


def _with_article(text: str, noun: Noun | None) -> str:
    """A text with "a" or "an", or none before a plural; ``noun`` None: a singular."""
    if noun is not None and noun.plural:
        return _lower(text)
    return f"{'an' if sounds_like_vowel(text) else 'a'} {text}"


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]
