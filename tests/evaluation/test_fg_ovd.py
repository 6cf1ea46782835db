"""FG-OVD files: box format, ties, and lines without a usable question."""

import json
from collections import Counter

import pytest
import torch
from PIL import Image

from fgclip_fast.data import causes
from fgclip_fast.evaluation import fg_ovd
from fgclip_fast.model.fgclip import FGCLIP
from tests.models import MINI


@pytest.fixture
def model():
    torch.manual_seed(0)
    return FGCLIP(MINI).eval()


def line(**changes):
    base = {
        "img_path": "val2017/a.jpg", "bbox": [10, 5, 20, 30], "pos_expression": ["a red mug"],
        "neg_expression": ["a blue mug", "a green mug"], "width": 64, "height": 48, "image_id": 1, "sent_id": 0,
        "category_id": 3, "neg_category_ids": [4], "test_type": "1_attributes",
    }  # fmt: skip
    return base | changes


def write(folder, *lines):
    (folder / "val2017").mkdir(exist_ok=True)
    for name in ("a", "b"):
        Image.effect_noise((64, 48), 80).convert("RGB").save(folder / "val2017" / f"{name}.jpg")
    path = folder / "questions.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


def test_a_box_is_read_as_x_y_width_height_in_pixels(tmp_path):
    (read,) = fg_ovd.read(write(tmp_path, line()), tmp_path, Counter())
    assert (read.number, read.image, (question := read.question).unseen) == (0, tmp_path / "val2017/a.jpg", None)
    assert list(question.box) == torch.tensor([10 / 64, 5 / 48, 30 / 64, 35 / 48]).tolist(), "in fp32"
    assert question.texts == ("a red mug", "a blue mug", "a green mug")


def test_answers_equal_plain_cosines(model, tmp_path):
    lines = [line(img_path=f"val2017/{n}.jpg", bbox=[x, 5, 20, 30]) for n in "ab" for x in (0, 10, 30)]
    answers = fg_ovd.answer(model, write(tmp_path, *lines), tmp_path, batch_size=1)
    right = 0
    for q in lines:
        image = model.transform(tmp_path / q["img_path"])[None]
        x, y, w, h = q["bbox"]
        region = model.encode_regions(
            image, [torch.tensor([[x / 64, y / 48, (x + w) / 64, (y + h) / 48]])], unit="fraction"
        )
        cosine = model.encode_text(q["pos_expression"] + q["neg_expression"]) @ region[0]
        right += int(cosine[0] >= cosine.max())
    assert (answers.correct, len(answers.lines)) == (right, 6)
    assert answers.chance == pytest.approx(1 / 3)
    assert sorted(asked.number for asked in answers.lines) == list(range(6))
    assert answers.figures().values["top1"] == right / 6


def test_questions_may_have_any_number_of_negatives(model, tmp_path):
    """One, two and ten: each is right as among its own texts alone, and chance is the mean of 1/2, 1/3 and 1/11."""
    lines = [line(neg_expression=[f"a mug {k}" for k in range(n)], bbox=[n, 5, 20, 30]) for n in (1, 2, 10)]
    together = fg_ovd.answer(model, write(tmp_path, *lines), tmp_path)
    by_number = {asked.number: rank for asked, rank in zip(together.lines, together.ranks, strict=True)}
    for number, one in enumerate(lines):
        (tmp_path / "one.jsonl").write_text(json.dumps(one))
        assert fg_ovd.answer(model, tmp_path / "one.jsonl", tmp_path).ranks == [by_number[number]]
    assert together.chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 11) / 3)


def test_a_tie_with_the_right_text_counts_as_right(model, tmp_path):
    cut = "a mug " * 80
    tie = line(pos_expression=[cut + "red"], neg_expression=[cut + "blue", cut + "green"])
    assert fg_ovd.answer(model, write(tmp_path, tie), tmp_path).correct == 1


def test_a_negative_equal_to_another_text_is_dropped_and_counted(model, tmp_path):
    same = ["A  mug", "a mug ", "\uff41 mug"]
    lines = [
        line(pos_expression=["a mug"], neg_expression=[*same, "a cup", "A cup"]),
        line(pos_expression=["a mug"], neg_expression=same),
    ]
    answers = fg_ovd.answer(model, write(tmp_path, *lines), tmp_path)
    assert [asked.question.texts for asked in answers.lines] == [("a mug", "a cup")] and answers.chance == 0.5
    values = answers.figures().values
    assert values["skipped"] == {"no negatives": 1}
    assert values["dropped"] == {causes.EQUAL_NEGATIVE: 3, causes.REPEATED_NEGATIVE: 1}


def test_lines_without_a_usable_question_are_counted_by_cause(model, tmp_path):
    bad = [
        "{not json", line(bbox=[1, 1, 0, 5]), line(bbox=[1, 2]), line(neg_expression=[]), line(width=0),
        line(img_path="val2017/none.jpg"), line(bbox=[float("nan"), 1, 2, 3]), "",
        line(neg_expression="a mug"), line(neg_expression=["a mug", None]), line(pos_expression=[3]), "[" * 100_000,
        line(bbox=[10**400, 1, 2, 3]), line(bbox=[1000, 5, 20, 30]),
        line(bbox=[-30, 5, 20, 30]), line(bbox=[10, 5, 1e-7, 30]), line(bbox=[10, 5, -3, 30]),
        line(bbox=[10, 5, 1e300, 30]),
    ]  # fmt: skip
    figures = fg_ovd.evaluate(model, write(tmp_path, line(), *bad), tmp_path)
    assert figures.asked == figures.values["questions"] == 1
    assert figures.skipped == figures.values["skipped"] == {
        "text of a wrong type": 3, "malformed line": 5, "empty box": 2, "box outside the image": 2, "no negatives": 1,
        "missing or unreadable image": 1, "inverted box": 1, "box not finite": 2,
    }  # fmt: skip


def test_invalid_utf8_and_too_large_images_cost_one_question_each(model, tmp_path, monkeypatch):
    path = write(tmp_path, line(), line(img_path="val2017/b.jpg"))
    path.write_bytes(path.read_bytes() + b'\n{"img_path": "\xff"}')
    Image.new("L", (80, 80)).save(tmp_path / "val2017" / "b.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48)  # twice as many are refused
    figures = fg_ovd.evaluate(model, path, tmp_path)
    assert (figures.asked, figures.skipped) == (1, {"malformed line": 1, "missing or unreadable image": 1})


def test_images_are_found_by_name_and_the_file_says_how_many(model, tmp_path):
    path = write(tmp_path, line(), line(img_path="train2017/b.jpg"), line(img_path="elsewhere/COCO_val2014_a.jpg"))
    figures = fg_ovd.evaluate(model, path, tmp_path)
    assert figures.asked == 3 and not figures.skipped
    ways = {"path as given": 1, "file name": 1, "file name without COCO's prefix": 1}
    assert figures.data["found by"] == ways


def test_the_current_folder_is_not_searched_for_names(model, tmp_path, monkeypatch):
    path = write(tmp_path, line(), line(img_path="train2017/b.jpg"))
    monkeypatch.chdir(tmp_path)
    assert fg_ovd.evaluate(model, path).skipped == {"missing or unreadable image": 1}


def test_an_empty_file_has_figures(model, tmp_path):
    figures = fg_ovd.evaluate(model, write(tmp_path), tmp_path).values
    assert figures["questions"] == 0 and figures["interval"] == [0.0, 1.0]


def test_limit_asks_only_the_first(model, tmp_path):
    assert fg_ovd.evaluate(model, write(tmp_path, line(), line(), line()), tmp_path, limit=2).asked == 2


def test_an_official_file_gives_the_questions_of_its_conversion(model, tmp_path):
    write(tmp_path)
    images = [{"id": 1, "file_name": "val2017/a.jpg", "width": 64, "height": 48}]
    names = ["a red mug", "a blue mug", "a green mug"]
    good = {"image_id": 1, "bbox": [10, 5, 20, 30], "category_id": 0, "neg_category_ids": [1, 2]}
    bad = [{**good, "neg_category_ids": []}, {**good, "category_id": 9}, {**good, "bbox": [1, 2, 0, 4]}]
    bad += [{**good, "image_id": 2}, {**good, "neg_category_ids": [7]}]
    categories = [{"id": n, "name": name} for n, name in enumerate(names)]
    path = tmp_path / "color.json"
    path.write_text(json.dumps({"images": images, "annotations": [good, *bad], "categories": categories}))
    skipped = Counter()
    (official,) = fg_ovd.read(path, tmp_path, skipped)
    (converted,) = fg_ovd.read(write(tmp_path, line()), tmp_path, Counter())
    assert official == converted
    assert skipped == {"no negatives": 1, "malformed line": 2, "empty box": 1, "text of a wrong type": 1}
