"""Rules write negatives that are false, different and grammatical."""

from collections import Counter

import pytest

from fgclip_fast.curate import Rules, count_values
from fgclip_fast.curate.lexicon.attributes import values
from fgclip_fast.curate.lexicon.nouns import nouns
from fgclip_fast.curate.lexicon.phrase import slots_of
from fgclip_fast.curate.lexicon.rules import rewrite, sounds_like_vowel
from tests.curate.judge import PHRASES, judge


def texts(rules, text, count=10, place="p"):
    return [negative.text for negative in rules.negatives(text, place, count)]


def test_negatives_of_300_phrases_are_false_different_and_grammatical():
    rules = Rules()
    assert len(set(PHRASES)) == len(PHRASES) >= 300
    verdicts = []
    for number, text in enumerate(PHRASES):
        negatives = texts(rules, text, place=str(number))
        assert len({negative.lower() for negative in (text, *negatives)}) == len(negatives) + 1
        verdicts += [judge(text, negative) for negative in negatives]
    assert len(verdicts) > 3000
    assert [verdict for verdict in verdicts if verdict.not_false] == []
    faults = [verdict for verdict in verdicts if verdict.ungrammatical or verdict.unread]
    assert len(faults) <= 0.03 * len(verdicts), faults[:5]


def test_the_judge_sees_what_is_true_and_what_is_ungrammatical():
    assert "may be" in judge("a crimson mug", "a red mug").not_false
    assert "related" in judge("a red sofa", "a red couch").not_false
    assert "nothing" in judge("a red mug", "a red mug").not_false
    assert judge("a red mug", "a orange mug").ungrammatical == "a orange"
    assert judge("a red mug", "a red cats").ungrammatical == "a cats"
    assert judge("two red cats", "two red mug").ungrammatical == "two mug"


@pytest.mark.parametrize(
    "text, found",
    [
        ("a light-blue see-through cup", ["color light-blue", "transparency see-through", "noun cup"]),
        ("an orange and a knife", ["noun orange"]),
        ("a black bear", ["noun bear"]),
        ("an old man in a red shirt", ["state old", "color red", "noun man"]),
        ("a wine glass", ["noun wine glass"]),
        ("a mug made of wood", ["material wood", "noun mug"]),
        ("a mug made of white ceramic", ["color white", "material ceramic", "noun mug"]),
        ("a mug that is blue", ["color blue", "noun mug"]),
        ("a bucket full of green stones", ["color green", "noun bucket"]),
        ("he left the room with a left shoe", []),
        ("a dog on the left of a very large red sofa", ["spatial left", "size large", "color red", "noun dog"]),
        ("two fish", ["count two", "noun fish"]),
        ("a pair of red shoes", ["color red", "noun shoes"]),
        ("bread on a table", []),
        ("ein rotes Haus", []),
        ("", []),
        ("红色的杯子, 👍", []),
    ],
)
def test_attributes_and_nouns_are_found_where_they_are_used_as_such(text, found):
    assert [f"{slot.kind} {text[slot.start : slot.end]}" for slot in slots_of(text)] == found


def test_articles_capitals_and_plurals_agree():
    assert rewrite("A red mug", [(2, 5, "orange")]) == "An orange mug"
    assert rewrite("an orange mug", [(3, 9, "red")]) == "a red mug"
    assert rewrite("Wooden chair", [(0, 6, "plastic")]) == "Plastic chair"
    assert [sounds_like_vowel(word) for word in ("hourglass", "unicorn", "umbrella", "European")] == [1, 0, 1, 0]
    assert (
        nouns().plural("knife") == "knives" and nouns().plural("woman") == "women" and nouns().plural("bus") == "buses"
    )
    others = texts(Rules(noun_swaps="bare"), "two mice", 300)
    assert "two geese" in others and "two wolves" in others and "two glasses" in others


def test_what_may_be_true_is_refused():
    assert not {"red", "dark red", "light red"} & {
        text.removeprefix("a ").removesuffix(" mug").removeprefix("n ") for text in texts(Rules(), "a crimson mug", 100)
    }
    assert not any("dog" in text for text in texts(Rules(noun_swaps="bare"), "a poodle", 300))
    assert not any("boy" in text for text in texts(Rules(noun_swaps="bare"), "a child", 300))
    assert not any("white and" in text for text in texts(Rules(level="hard"), "a red and white mug", 100))
    assert all(nouns().related(one, other) for one, other in [("sofa", "couch"), ("dog", "animal"), ("mug", "cup")])


@pytest.mark.parametrize("level, changes", [("hard", 1), ("medium", 2), ("easy", 3)])
def test_a_level_changes_as_many_attributes_as_it_says_and_keeps_the_noun(level, changes):
    negatives = Rules(level=level).negatives("a small red striped metal mug", "p")
    assert len(negatives) == 10
    assert all(len(negative.kinds) == changes and negative.text.endswith(" mug") for negative in negatives)
    assert Rules(level="easy").negatives("a red metal mug", "p") == []


@pytest.mark.parametrize("level, count", [("color", 10), ("material", 10), ("pattern", 7), ("transparency", 2)])
def test_a_level_of_one_kind_changes_this_kind_only(level, count):
    negatives = Rules(level=level).negatives("a red striped opaque plastic mug", "p")
    assert len(negatives) == count and {negative.kinds for negative in negatives} == {(level,)}


def test_trivial_negatives_are_texts_of_other_nouns():
    others = ["a blue cup", "a green dog", "a grey house", "the weather"]
    assert set(texts(Rules(others=others, level="trivial"), "a red mug")) == {"a green dog", "a grey house"}


def test_nouns_change_only_where_they_may():
    bare, tagged = "a snail", "a large snail"
    assert texts(Rules(noun_swaps="never"), bare) == texts(Rules(noun_swaps="fill"), bare) == []
    assert len(texts(Rules(noun_swaps="bare"), bare)) == len(texts(Rules(noun_swaps="fill"), tagged)) == 10
    assert all(text.endswith("snail") for text in texts(Rules(noun_swaps="never"), tagged))


def nouns_changed(rules, text, count=10, texts=400):
    found = [rules.negatives(text, str(place), count) for place in range(texts)]
    assert all(len(negatives) == count for negatives in found)
    return sum(negative.kinds == ("noun",) for negatives in found for negative in negatives) / (count * texts)


@pytest.mark.parametrize("count", [1, 4, 10])
@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_a_share_of_the_negatives_names_another_noun(share, count):
    text = "a small red striped metal mug"
    assert abs(nouns_changed(Rules(noun_share=share), text, count) - share) < 0.05
    assert nouns_changed(Rules(noun_share=share, noun_swaps="never"), text, texts=20) == 0
    assert all(negative.kinds != ("noun",) for negative in Rules(noun_share=share, level="hard").negatives(text, "p"))


def test_the_negatives_with_another_noun_stand_among_the_others():
    negatives = [Rules().negatives("a small red striped metal mug", str(place)) for place in range(100)]
    assert 10 < sum(each[0].kinds == ("noun",) for each in negatives) < 60


def test_negatives_use_the_words_of_the_set():
    counts = count_values(["a red mug", "a blue mug", "a gray cat", "a yellow hat"] * 1000)
    assert counts["color red"] == 1000 and counts["noun mug"] == 2000
    rules = Rules(counts, noun_share=0)
    drawn = Counter(texts(rules, f"a red mug {i}", 1)[0] for i in range(200))
    assert all(any(color in text for color in ("blue", "gray", "yellow")) for text, n in drawn.items() if n > 5)
    assert not any("grey" in text for text in texts(Rules(counts), "a red mug", 100))


def test_the_same_negatives_come_each_time_and_others_elsewhere():
    text = "a small red metal mug"
    assert Rules().negatives(text, "p") == Rules().negatives(text, "p")
    assert Rules().negatives(text, "p") != Rules().negatives(text, "q")
    assert Rules(seed=1).negatives(text, "p") != Rules(seed=0).negatives(text, "p")


def test_each_drawn_value_has_others_that_contradict_it():
    drawn = [value for each in values().values() for value in each if value.drawn]
    for value in drawn:
        same = [other for other in drawn if (other.kind, other.dimension, other.form) == value[1:4]]
        assert any(not value.shades & other.shades for other in same), value
