"""Region retrieval: RefCOCO's references and Flickr30k Entities, splits, several right boxes, pickles."""

import json

import pytest
from PIL import Image

from fgclip_fast.evaluation import region_retrieval
from tests.evaluation.planted import STEP, Planted, grey, unit

LEFT, RIGHT = [2, 2, 28, 36], [34, 2, 28, 36]


def halves(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (64, 40), (0, 0, 0))
    image.paste((STEP,) * 3, (32, 0, 64, 40))
    image.save(path, "PNG")


def model(**texts):
    return Planted({n: unit(n) for n in range(4)}, texts)


def references(folder, refs):
    halves(folder / "train2014" / "COCO_train2014_1.jpg")
    grey(folder / "train2014" / "COCO_train2014_2.jpg", 2, (64, 40))
    images = [{"id": n, "width": 64, "height": 40, "file_name": f"COCO_train2014_{n}.jpg"} for n in (1, 2, 3)]
    boxes = [(1, LEFT, 11), (1, RIGHT, 12), (2, LEFT, 21), (2, RIGHT, 22), (3, LEFT, 31), (1, [1, 1, 0, 5], 13)]
    annotations = [{"image_id": i, "bbox": b, "id": a, "category_id": 1} for i, b, a in boxes]
    whole = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    (folder / "refcoco").mkdir()
    (folder / "refcoco" / "instances.json").write_text(json.dumps(whole))
    keys = ("image_id", "ann_id", "split", "sentences")
    rows = [dict(zip(keys, (*ref[:3], [{"raw": t} for t in ref[3]]), strict=True)) for ref in refs]
    (folder / "refcoco" / "refs(unc).json").write_text(json.dumps(rows))
    return folder / "refcoco"


def test_references_by_split_are_those_of_a_calculation_by_hand(tmp_path):
    """Image 1: the left is grey 0. Image 2: both boxes look alike, so a phrase about one is a tie, and wrong."""
    refs = [
        (1, 11, "val", ["black", "bright"]), (1, 12, "testA", ["bright"]), (2, 21, "val", ["other"]),
        (1, 11, "train", ["never"]), (3, 31, "val", ["lost"]), (1, 13, "val", ["empty"]), (1, 99, "val", ["unknown"]),
    ]  # fmt: skip
    planted = model(black=unit(0), bright=unit(1), other=unit(2))
    figures = region_retrieval.evaluate(planted, references(tmp_path, refs), root=tmp_path)
    assert figures.values["top1 val"] == 1 / 3 and figures.values["top1 testA"] == 1.0 and figures.values["top1"] == 0.5
    assert (figures.asked, figures.values["chance"]) == (4, 0.5)
    assert figures.skipped == {"missing or unreadable image": 1, "reference without a usable box or text": 2}
    assert planted.asked.count("bright") == 1


def test_a_phrase_of_flickr_entities_may_have_several_right_boxes(tmp_path):
    halves(tmp_path / "images" / "7.jpg")
    (tmp_path / "Sentences").mkdir()
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "test.txt").write_text("7\n8\n")
    line = "[/EN#1/people Two men] by [/EN#2/other a wall] and [/EN#3/scene a field] .\n"
    (tmp_path / "Sentences" / "7.txt").write_text(line)
    box = "<bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>{}</xmax><ymax>30</ymax></bndbox>"
    objects = [("1", box.format(2, 30)), ("1", box.format(4, 28)), ("2", box.format(34, 62)), ("3", "<scene>1</scene>")]
    inner = "".join(f"<object><name>{name}</name>{bounds}</object>" for name, bounds in objects)
    size = "<size><width>64</width><height>40</height></size>"
    (tmp_path / "Annotations" / "7.xml").write_text(f"<annotation>{size}{inner}</annotation>")
    planted = Planted({n: unit(n) for n in range(4)}, {"Two men": unit(0), "a wall": unit(0)})
    figures = region_retrieval.evaluate(planted, tmp_path)
    assert figures.values["top1"] == 0.5 and figures.values["chance"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert figures.skipped == {"malformed or missing annotation file": 1, "phrase without a box": 1}


def test_a_pickle_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "refs(unc).p").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ValueError, match=r"is a pickle, which is not read.*json.dump\(pickle.load"):
        region_retrieval.evaluate(model(), tmp_path)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must hold refs\*.json \(RefCOCO\) or Sentences/"):
        region_retrieval.evaluate(model(), tmp_path)
