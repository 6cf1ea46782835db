"""Captions are true and long enough; training texts have the specified forms and never name a held-out pair."""

import re
from collections import Counter
from random import Random

import pytest

from fgclip_fast.data.records import parse
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.scenes.compose import SIDE
from fgclip_fast.scenes.describe import FORMS, relation, whereabouts
from fgclip_fast.scenes.grammar import COLOURS, FINISHES, HELD_OUT, NOUNS, PATTERNS, SIZES, Thing, phrase
from fgclip_fast.scenes.negatives import ATTRIBUTE_SHARES, CHANGE_SHARES, training_negatives
from fgclip_fast.scenes.write import record_of, scene_of

PAIR = re.compile(rf"({'|'.join(COLOURS)}) (\w+)")


@pytest.fixture(scope="module")
def records():
    return [record_of(scene_of("train", i), "train", i) for i in range(300)]


def texts(record):
    yield from (record["caption"], record["short_caption"])
    for region in record["bbox_info"]:
        yield from (region["short_expr"], region["long_expr"], *region["short_expr_negs"].values())


def words(text):
    """The words of a phrase by attribute."""
    known = {"size": SIZES, "finish": FINISHES, "pattern": PATTERNS, "colour": COLOURS, "noun": NOUNS}
    return {name: word for word in text.split() for name, values in known.items() if word in values}


def test_the_grammar_is_large_enough():
    assert len(NOUNS) >= 24 and len(COLOURS) == 10 and len(PATTERNS) >= 3 and len(FINISHES) >= 3 and len(SIZES) == 2


def test_held_out_pairs_touch_every_noun_and_colour():
    assert 0.1 <= len(HELD_OUT) / 240 <= 0.2
    assert {noun for noun, _ in HELD_OUT} == set(NOUNS) and {colour for _, colour in HELD_OUT} == set(COLOURS)


def test_no_training_text_names_a_held_out_pair(records):
    named = {(noun, colour) for record in records for text in texts(record) for colour, noun in PAIR.findall(text)}
    assert named and not named & HELD_OUT


def test_a_colour_always_stands_before_its_noun(records):
    for record in records:
        for text in texts(record):
            assert len(re.findall("|".join(COLOURS), text)) == sum(noun in NOUNS for _, noun in PAIR.findall(text)), (
                text
            )


def test_every_record_is_without_defect(records):
    for record in records:
        parsed = parse(record)
        assert not parsed.defects and len(parsed.regions) == len(record["bbox_info"])
        assert all(len(region.negatives) == 10 for region in parsed.regions)


def test_negatives_are_different_and_wrong(records):
    for record in records:
        for region in record["bbox_info"]:
            positive, negatives = region["short_expr"], list(region["short_expr_negs"].values())
            assert len({positive, *negatives}) == 11
            assert all(words(negative).keys() == words(positive).keys() for negative in negatives)


def test_forms_come_as_often_as_specified(records):
    found = Counter(tuple(words(region["short_expr"])) for record in records for region in record["bbox_info"])
    for form, share in FORMS.items():
        assert found[form] / found.total() == pytest.approx(share, abs=0.05)


def test_changes_come_as_often_as_specified():
    thing = Thing("small", "snowy", "striped", "red", "boat")
    counts, attributes = Counter(), Counter()
    for i in range(400):
        for text in training_negatives(thing, Thing._fields, Random(i)):
            changed = [name for name, word in words(text).items() if getattr(thing, name) != word]
            counts[len(changed)] += 1
            attributes.update(changed if len(changed) == 1 else [])
    # The negatives of a text differ, so attributes with few values run out and the shares shift towards the noun.
    assert counts[1] / counts.total() == pytest.approx(CHANGE_SHARES[1], abs=0.12)
    assert attributes["noun"] / attributes.total() == pytest.approx(ATTRIBUTE_SHARES["noun"], abs=0.12)


def test_long_captions_need_the_long_path(records):
    tokenizer = Tokenizer()
    lengths = [len(tokenizer([record["caption"]], 248).token) for record in records[:100]]
    assert min(lengths) > 60 and max(lengths) > 77


def test_places_and_relations_are_true():
    for i in range(100):
        a, b = scene_of("train", i).placed[:2]
        (ax, ay), (bx, by) = a.centre, b.centre
        true = {"to the left of": ax < bx, "to the right of": ax > bx, "above": ay < by, "below": ay > by}
        assert true[relation(a, b)]
        assert whereabouts(a) == f"{'upper' if ay < SIDE / 2 else 'lower'} {'left' if ax < SIDE / 2 else 'right'}"


def test_the_article_fits():
    assert phrase(Thing("small", "snowy", "plain", "red", "apple"), ("noun",)) == "an apple"
    assert phrase(Thing("small", "snowy", "plain", "orange", "mug"), ("colour", "noun")) == "an orange mug"
