"""Box classification: COCO and LVIS files, crowds, missing images, classes without boxes."""

import json

import pytest
from PIL import Image

from fgclip_fast.evaluation import boxes
from tests.evaluation.planted import STEP, Planted, grey, unit


@pytest.fixture
def folder(tmp_path):
    """Two images: grey 0 on the left and grey 1 on the right; grey 2."""
    (tmp_path / "val2017").mkdir()
    image = Image.new("RGB", (64, 40), (0, 0, 0))
    image.paste((STEP,) * 3, (32, 0, 64, 40))
    image.save(tmp_path / "val2017" / "a.png")
    grey(tmp_path / "val2017" / "b.png", 2, (64, 40))
    (tmp_path / "t.txt").write_text("a {}")
    return tmp_path


LEFT, RIGHT = [2, 2, 28, 36], [34, 2, 28, 36]
NAMES = {1: "cat", 3: "traffic light", 7: "bird", 9: "cow"}


def annotation(image, box, category, **more):
    return {"image_id": image, "bbox": box, "category_id": category, "iscrowd": 0, **more}


def write(folder, annotations, lvis=False):
    images = [{"id": n, "width": 64, "height": 40, "file_name": f"{name}.png"} for n, name in enumerate("abx")]
    categories = [{"id": i, "name": name} for i, name in NAMES.items()]
    if lvis:
        for image, split in zip(images, ("val2017", "val2017", "train2017"), strict=True):
            image["coco_url"] = f"http://images.cocodataset.org/{split}/{image.pop('file_name')}"
        categories = [{**c, "name": c["name"].replace(" ", "_"), "synset": "x.n.01"} for c in categories[::-1]]
    (folder / "annotations").mkdir(exist_ok=True)
    path = folder / "annotations" / ("lvis_v1_val.json" if lvis else "instances_val2017.json")
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def model():
    return Planted({n: unit(n) for n in range(4)}, {f"a {name}": unit(n) for n, name in enumerate(NAMES.values())})


SIX = [
    annotation(0, LEFT, 1), annotation(0, LEFT, 1), annotation(0, RIGHT, 1), annotation(0, RIGHT, 3, iscrowd=1),
    annotation(1, LEFT, 7), annotation(1, RIGHT, 1),
]  # fmt: skip


@pytest.mark.parametrize("lvis", [False, True])
def test_figures_are_those_of_a_calculation_by_hand(folder, lvis):
    """Cats: two of four boxes show grey 0. The light (a crowd) and the bird are right; there is no cow."""
    figures = boxes.evaluate(model(), write(folder, SIX, lvis), templates=folder / "t.txt")
    assert figures.values["top1"] == 4 / 6 and figures.values["top1_mean_of_classes"] == pytest.approx(2.5 / 3)
    assert figures.values["top5"] == 1.0 and (figures.asked, figures.skipped) == (6, {})
    assert figures.values["by_class"] == {"0 cat": 0.5, "1 traffic light": 1.0, "2 bird": 1.0, "3 cow": None}
    assert figures.protocol.startswith("lvis boxes, images of val2017" if lvis else "coco boxes, crowds included")
    assert {name[-5:]: value for name, value in figures.outcomes["top1"].items()} == {"a.png": (3, 4), "b.png": (1, 2)}


def test_boxes_that_cannot_be_asked_are_counted_by_cause(folder):
    bad = [
        annotation(2, LEFT, 1), annotation(0, [5, 5, 0, 5], 1), annotation(0, [900, 5, 5, 5], 1), annotation(0, [1], 1),
        annotation(0, LEFT, 2), annotation(8, LEFT, 1), {"image_id": 0},
    ]  # fmt: skip
    (folder / "val2017" / "b.png").write_bytes(b"broken")
    figures = boxes.evaluate(model(), write(folder, SIX + bad), templates=folder / "t.txt")
    assert figures.asked == 4 and figures.skipped == {
        "missing or unreadable image": 3, "empty box": 1, "box outside the image": 1, "box of fewer than 4 numbers": 1,
        "malformed annotation": 3,
    }  # fmt: skip


def test_lvis_images_of_train2017_are_not_of_the_protocol(folder):
    figures = boxes.evaluate(
        model(), write(folder, [*SIX, annotation(2, LEFT, 1)], lvis=True), templates=folder / "t.txt"
    )
    assert figures.asked == 6 and figures.skipped == {}


def test_of_classes_that_tie_the_first_is_chosen(folder):
    """Cat and bird have one embedding: a cat's box is a cat, and a bird's is a cat, too."""
    planted = model()
    planted.texts["a bird"] = planted.texts["a cat"]
    rows = [annotation(0, LEFT, 1), annotation(0, LEFT, 7)]
    figures = boxes.evaluate(planted, write(folder, rows), templates=folder / "t.txt")
    assert figures.values["by_class"] == {"0 cat": 1.0, "1 traffic light": None, "2 bird": 0.0, "3 cow": None}


def test_order_batch_and_limit(folder):
    one = boxes.evaluate(model(), write(folder, SIX), templates=folder / "t.txt").values
    turned = boxes.evaluate(model(), write(folder, SIX[::-1]), templates=folder / "t.txt", batch_size=1).values
    assert turned == one
    assert boxes.evaluate(model(), write(folder, SIX), templates=folder / "t.txt", limit=3).asked == 3


def test_images_are_decoded_once_and_texts_embedded_once(folder):
    planted = model()
    boxes.evaluate(planted, write(folder, SIX), templates=folder / "t.txt")
    assert sorted(planted.decoded) == ["a.png", "b.png"] and len(planted.asked) == len(set(planted.asked)) == 4


def test_a_file_of_another_layout_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match=r"must hold images, annotations, categories \(COCO's layout\), got images"):
        boxes.evaluate(model(), tmp_path / "x.json")
