"""What would teach something wrong is left out, and counted under its cause."""

import numpy as np
import pytest

from fgclip_fast.curate import boxes, run, texts
from fgclip_fast.curate.filters import NEAR_DUPLICATE, TRUE_NEGATIVE, TRUE_OF_ANOTHER, Filter
from fgclip_fast.curate.lexicon.truth import is_true_of
from fgclip_fast.curate.units import shards_of
from fgclip_fast.data.causes import EQUAL_NEGATIVE
from fgclip_fast.inputs.boxes import INVERTED
from tests.curate.shards import jpeg, records, region, write

GOOD = "A wooden chair stands beside a small table with a green lamp on it."


def filtered(tmp_path, *fields, images=None, **settings):
    shards = shards_of([write(tmp_path / "mine" / "a.tar", *fields, images=images)])
    settings = {"duplicates": False, "language": ""} | settings
    counts = run(Filter(**settings), shards, tmp_path / "out", workers=1)
    return counts, records(tmp_path / "out")


@pytest.mark.parametrize(
    "text, fault",
    [
        ("I'm sorry, but I can't assist with that.", texts.REFUSAL),
        ("As an AI language model, I do not see pictures.", texts.REFUSAL),
        ("a dog and a dog and a dog and a dog", texts.LOOP),
        ("very very very very very red", texts.LOOP),
        (" ".join(f"a red mug on a table {i} and so on it goes" for i in range(9)), texts.LOOP),
        ("  ", texts.EMPTY),
        (GOOD, None),
        ("a big, big dog and a small, small dog", None),
        ("The man is sorry that he cannot help the dog.", None),
    ],
)
def test_faults_of_texts_are_told(text, fault):
    assert texts.fault_of(text) == fault


def test_another_language_is_told():
    pytest.importorskip("py3langid")
    assert texts.fault_of("Das Bild zeigt einen roten Becher auf einem Tisch vor einer Wand.", "en") == texts.LANGUAGE
    assert texts.fault_of("这张图片显示一个红色的杯子在桌子上", "en") == texts.LANGUAGE
    assert texts.fault_of(GOOD, "en") is None and texts.fault_of("a red mug", "en") is None
    with pytest.raises(ValueError, match=r"--language must be one of .*, got 'xx'"):
        texts.fault_of(GOOD, "xx")


def test_overlap_and_suppression_agree_with_counting_cells():
    ours = boxes.overlaps([(0.0, 0.0, 0.5, 0.5), (0.25, 0.0, 0.75, 0.5), (0.8, 0.8, 1.0, 1.0)])
    np.testing.assert_allclose(ours, [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]])
    rng = np.random.default_rng(0)
    many = [(*low, *(low + side)) for low, side in zip(rng.random((9, 2)), rng.random((9, 2)) + 0.01, strict=True)]
    pairs = [[boxes.overlap(one, other) for other in many] for one in many]
    np.testing.assert_allclose(pairs, boxes.overlaps(many), rtol=1e-12)
    found = boxes.suppressed([(0, 0, 0.5, 0.5), (0.01, 0, 0.5, 0.5), (0.6, 0.6, 1, 1)], [0.5, 0.9, 0.5], 0.6)
    assert found == [1, 2] and boxes.suppressed([], [], 0.5) == []


def test_bad_boxes_are_dropped_with_their_cause(tmp_path):
    good = region("a mug")
    bad = [
        region("a dot", (0.1, 0.1, 0.12, 0.12)), region("a wall", (0, 0, 1, 1)), region("a cup", (0.5, 0.1, 0.2, 0.3)),
        region("a cup", (0.1, 0.1, 0.61, 0.6)), {"bbox": [0.1, 0.1, 0.9, 0.3]},
    ]  # fmt: skip
    counts, (kept,) = filtered(tmp_path, {"short_caption": "a mug", "bbox_info": [good, *bad]})
    assert kept["bbox_info"] == [good]
    for cause in (boxes.TINY, boxes.EVERYTHING, boxes.DUPLICATE, INVERTED, "no text"):
        assert counts[f"regions dropped: {cause}"] == 1
    assert counts["regions"] == 6 and counts["regions dropped"] == 5


def test_bad_captions_cost_their_record_and_bad_short_ones_themselves(tmp_path):
    counts, kept = filtered(
        tmp_path, {"caption": "I'm sorry, I cannot help."}, {"short_caption": "dog dog dog dog dog", "caption": GOOD}
    )
    assert kept == [{"caption": GOOD}]
    assert counts[f"records dropped: caption: {texts.REFUSAL}"] == 1
    assert counts[f"short captions dropped: {texts.LOOP}"] == 1


@pytest.mark.parametrize(
    "negative, true",
    [
        ("a crimson mug", True), ("a mug", True), ("the mug that is red", True), ("a blue mug", False),
        ("a striped mug", False), ("a red dog", False), ("a red mug with a bow", False),
    ],
)  # fmt: skip
def test_a_negative_is_true_if_the_lexicon_says_so(negative, true):
    assert is_true_of("a red mug", negative) is true


def test_false_negatives_are_dropped(tmp_path):
    negatives = {str(n): text for n, text in enumerate(("a crimson mug", "a blue mug", "A  red mug", "a green cup"))}
    mug = region("a red mug", short_expr_negs=negatives, flag_short_neg=1)
    other = region("a green cup", (0.15, 0.1, 0.6, 0.6))
    far = region("a blue mug", (0.7, 0.7, 0.9, 0.9))
    counts, (kept,) = filtered(tmp_path, {"short_caption": "a mug", "bbox_info": [mug, other, far]})
    assert kept["bbox_info"][0]["short_expr_negs"] == {"0": "a blue mug"}
    for cause in (TRUE_NEGATIVE, TRUE_OF_ANOTHER, EQUAL_NEGATIVE):
        assert counts[f"negatives dropped: {cause}"] == 1
    assert counts["negatives"] == counts["groups"] == 1


def test_repeated_images_are_left_out_after_the_first(tmp_path):
    images = [jpeg((200, 30, 30)), jpeg((20, 30, 200)), jpeg((200, 30, 30), quality=70)]
    counts, kept = filtered(
        tmp_path, *({"short_caption": text} for text in ("a", "b", "c")), images=images, duplicates=True
    )
    assert [fields["short_caption"] for fields in kept] == ["a", "b"]
    assert counts[f"records dropped: {NEAR_DUPLICATE}"] == 1


def test_a_wrong_setting_names_itself():
    with pytest.raises(ValueError, match=r"curate filter: overlap must be in \(0, 1\], got 0"):
        Filter(overlap=0)
