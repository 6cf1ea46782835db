"""Captions give the things that they name, with the words that describe them."""

import pytest

from fgclip_fast.curate import Phrase, phrases_of, run
from fgclip_fast.curate.phrases import Phrases
from fgclip_fast.curate.units import shards_of
from fgclip_fast.data.causes import NO_TEXT
from fgclip_fast.scenes.grammar import phrase
from fgclip_fast.scenes.write import record_of, scene_of
from tests.curate.judge import PHRASES
from tests.curate.shards import records, write


def shorts(*captions):
    return [found.short for found in phrases_of(captions, 99)]


def test_a_phrase_is_bare_short_and_long():
    (mug, rim) = phrases_of(["The glossy red mug with a chipped rim."], 9)
    assert mug == Phrase("a mug", "a glossy red mug", "a glossy red mug with a chipped rim")
    assert rim.short == "a chipped rim"


@pytest.mark.parametrize(
    "caption, found",
    [
        ("It shows two ceramic mugs side by side on a worn oak table.", ["two ceramic mugs", "a worn oak table"]),
        ("A man watches television while a young woman is sitting on a sofa.", ["a man", "a young woman", "a sofa"]),
        ("The overall atmosphere is calm; a sense of peace fills the scene.", []),
        ("A bunch of ripe bananas hangs from a hook.", ["a bunch of ripe bananas", "a hook"]),
        ("In the upper left there is an old orange cat, and tall trees.", ["an old orange cat", "tall trees"]),
        ("A red bus drives past a large stone building.", ["a red bus", "a large stone building"]),
        ("A boy throwing a ball. Its feathers are green.", ["a boy", "a ball", "feathers"]),
        ("People stand around a person in a hat.", ["people", "a person", "a hat"]),
        ("", []),
    ],
)  # fmt: skip
def test_things_are_found_and_nothing_else(caption, found):
    assert shorts(caption) == found


def test_a_thing_named_again_is_one_phrase_with_the_most_words():
    assert shorts("a red mug", "There is a large dotted red mug. The red mug is left of the blue mug.") == [
        "a large dotted red mug", "a blue mug",
    ]  # fmt: skip


def test_of_many_phrases_the_first_are_kept():
    assert [found.bare for found in phrases_of(["a dog, a cat, a horse and a cow"], 2)] == ["a dog", "a cat"]


def test_nine_in_ten_expressions_are_read_whole():
    whole = [text for text in PHRASES if any(p.long.lower() == text.lower() for p in phrases_of([text], 1))]
    assert len(whole) >= 0.9 * len(PHRASES)


def test_all_things_of_the_scenes_are_found():
    for number in range(30):
        scene = scene_of("train", number)
        fields = record_of(scene, "train", number)
        found = shorts(fields["short_caption"], fields["caption"])
        assert {phrase(placed.thing) for placed in scene.placed} <= set(found)


def test_the_stage_notes_phrases_and_drops_records_without_captions(tmp_path):
    shards = write(tmp_path / "a.tar", {"caption": "A red mug on a table."}, {"short_caption": "hello"}, {})
    counts = run(Phrases(most=1), shards_of([shards]), tmp_path / "out", workers=1)
    assert counts["phrases"] == counts["records without phrases"] == counts[f"records dropped: {NO_TEXT}"] == 1
    first, second = records(tmp_path / "out")
    assert first["phrases"] == [{"bare": "a mug", "short": "a red mug", "long": "a red mug on a table"}]
    assert second["phrases"] == []
