"""SugarCrepe, ARO and Winoground: scores by hand, ties, crops, missing images."""

import json

import pytest
from PIL import Image

from fgclip_fast.evaluation import compositional
from tests.evaluation.planted import STEP, Planted, grey, unit


def model(**texts):
    return Planted({n: unit(n) for n in range(4)}, {name.replace("_", " "): row for name, row in texts.items()})


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_sugarcrepe_gives_each_kind_and_a_tie_is_wrong(tmp_path):
    grey(tmp_path / "val2017" / "a.png", 0)
    grey(tmp_path / "val2017" / "b.png", 1)
    (tmp_path / "sugarcrepe").mkdir()
    case = {"filename": "a.png", "caption": "right", "negative_caption": "wrong"}
    tie = {"filename": "a.png", "caption": "right", "negative_caption": "same"}
    missing = {"filename": "x.png", "caption": "right", "negative_caption": "same"}
    write(tmp_path / "sugarcrepe" / "add_obj.json", {"0": case, "1": tie, "2": {**case, "filename": "b.png"}})
    write(tmp_path / "sugarcrepe" / "swap_att.json", {"0": case, "1": missing, "2": {"filename": "a.png"}})
    planted = model(right=unit(0), wrong=unit(1), same=unit(0))
    figures = compositional.evaluate(planted, tmp_path / "sugarcrepe", root=tmp_path)
    assert figures.values["top1"] == 2 / 4 and figures.values["top1 add_obj"] == 1 / 3
    assert figures.values["top1 swap_att"] == 1.0 and "top1_mean_of_kinds" not in figures.values
    assert figures.skipped == {"malformed case": 1, "missing or unreadable image": 1}
    assert figures.protocol == "sugarcrepe, strictly nearer, short text path"


def test_aro_cuts_the_image_and_means_over_relations_with_enough_cases(tmp_path):
    image = Image.new("RGB", (40, 40), (0, 0, 0))
    image.paste((STEP,) * 3, (20, 0, 40, 40))
    image.save(tmp_path / "1.png")
    base = {"image_path": "1.png", "bbox_y": 0, "bbox_w": 20, "bbox_h": 40, "true_caption": "l", "false_caption": "r"}
    left, right = {**base, "bbox_x": 0}, {**base, "bbox_x": 20}
    cases = [{**left, "relation_name": "on"}] * 25 + [{**right, "relation_name": "in"}] * 30
    cases += [{**left, "relation_name": "in"}] * 10 + [{**left, "relation_name": "rare"}] * 3
    path = write(tmp_path / "visual_genome_relation.json", [*cases, {**left, "bbox_w": 0}])
    figures = compositional.evaluate(model(l=unit(0), r=unit(1)), path)
    assert figures.values["top1"] == 38 / 68 and figures.values["top1_mean_of_kinds"] == (1 + 10 / 40) / 2
    assert figures.values["top1_by_kind"]["rare"] == 1.0 and figures.skipped == {"malformed case": 1}
    assert figures.protocol.startswith("aro, images cut to their box")


def test_winoground_scores_of_texts_images_and_groups(tmp_path):
    for number in range(3):
        grey(tmp_path / "images" / f"ex_{number}.png", number)
    case = {"image_0": "ex_0", "image_1": "ex_1", "caption_0": "a", "caption_1": "b", "collapsed_tag": "Object"}
    half = {**case, "caption_1": "c", "collapsed_tag": "Relation"}
    path = tmp_path / "examples.jsonl"
    path.write_text("\n".join(map(json.dumps, [case, half])))
    # b is nearer to image 1 than c's rival a is; c is nearer to image 0 than to image 1, and less so than a.
    figures = compositional.evaluate(model(a=[1.0, 0.1, 0, 0], b=unit(1), c=[0.7, 0.6, 0, 0.4]), path)
    assert (figures.values["text"], figures.values["image"], figures.values["group"]) == (1.0, 0.5, 0.5)
    assert figures.values["group Object"] == 1.0 and figures.values["group Relation"] == 0.0
    assert figures.values["chance"]["group"] == 1 / 6


def test_cases_of_aro_and_winoground_without_their_images_are_counted(tmp_path):
    """Of Winoground's case one of two images is there; a broken file of ARO costs both cases that ask about it."""
    grey(tmp_path / "images" / "ex_0.png", 0)
    case = {"image_0": "ex_0", "image_1": "ex_1", "caption_0": "a", "caption_1": "b"}
    (tmp_path / "examples.jsonl").write_text(json.dumps(case))
    figures = compositional.evaluate(model(a=unit(0), b=unit(1)), tmp_path / "examples.jsonl")
    assert figures.asked == 0 and figures.skipped == {"missing or unreadable image": 1}
    (tmp_path / "1.png").write_bytes(b"broken")
    grey(tmp_path / "2.png", 0)
    base = {"bbox_x": 0, "bbox_y": 0, "bbox_w": 20, "bbox_h": 20, "true_caption": "a", "false_caption": "b"}
    cases = [{**base, "image_path": name, "relation_name": "on"} for name in ("1.png", "1.png", "2.png", "3.png")]
    figures = compositional.evaluate(
        model(a=unit(0), b=unit(1)), write(tmp_path / "visual_genome_relation.json", cases)
    )
    assert figures.asked == 1 and figures.values["top1"] == 1.0
    assert figures.skipped == {"missing or unreadable image": 3}


@pytest.mark.parametrize("content", [{"0": {"caption": "a"}}, [1, 2], {}])
def test_another_file_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match="must hold cases of SugarCrepe"):
        compositional.evaluate(model(), write(tmp_path / "x.json", content))
