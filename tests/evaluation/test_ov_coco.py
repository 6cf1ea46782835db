"""OV-COCO: AP50 by hand and by pycocotools' own way, given proposals, crowds, images that cannot be read."""

import json
import math

import pytest
import torch

from fgclip_fast.evaluation import ov_coco
from fgclip_fast.evaluation.average_precision import detect, overlaps
from tests.evaluation.planted import Planted, grey, unit

pytest.importorskip("pycocotools")

CAT, DOG, PERSON, CUP = 17, 18, 1, 47
CATEGORIES = [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}, {"id": PERSON, "name": "person"},
              {"id": CUP, "name": "cup"}, {"id": 77, "name": "cell phone"}]  # fmt: skip
LEFT, RIGHT = [2, 2, 28, 36], [34, 2, 28, 36]
HALF = 51 / 101
"""AP of one of two boxes found, at precision 1: of recalls 0, 0.01, …, 1 those up to 0.5 are reached."""


def model():
    """Grey 0 is a cat, grey 1 a dog, grey 2 a person, grey 3 any other class."""
    planted = {"cat": 0, "dog": 1, "person": 2}
    return Planted({n: unit(n) for n in range(4)}, {f"a {c}": unit(planted.get(c, 3)) for c in ov_coco.CLASSES})


@pytest.fixture
def folder(tmp_path):
    """Images of one grey level: cat, dog, person, cat."""
    for number, level in enumerate((0, 1, 2, 0)):
        grey(tmp_path / "val2017" / f"{number}.png", level, (64, 40))
    (tmp_path / "t.txt").write_text("a {}")
    return tmp_path


def annotation(image, box, category, iscrowd=0):
    return {"image_id": image, "bbox": box, "category_id": category, "iscrowd": iscrowd, "area": box[2] * box[3]}


BOXES = [
    annotation(0, LEFT, CAT), annotation(2, LEFT, CAT), annotation(1, LEFT, DOG), annotation(2, RIGHT, PERSON),
    annotation(3, LEFT, CAT, iscrowd=1), annotation(1, RIGHT, 77),
]  # fmt: skip


def write(folder, annotations, images=4):
    records = [{"id": n, "width": 64, "height": 40, "file_name": f"{n}.png"} for n in range(images)]
    path = folder / "instances_val2017.json"
    path.write_text(json.dumps({"images": records, "annotations": annotations, "categories": CATEGORIES}))
    return path


def ask(folder, annotations=BOXES, proposals=None, images=4, **way):
    given = None
    if proposals is not None:
        given = folder / "proposals.json"
        given.write_text(json.dumps(proposals))
    path = write(folder, annotations, images)
    return ov_coco.evaluate(model(), path, proposals=given, templates=folder / "t.txt", **way)


def proposal(image, box, score):
    return {"image_id": image, "bbox": box, "score": score, "category_id": 1}


PROPOSALS = [
    proposal(0, LEFT, 0.9),  # finds one of two cats
    proposal(0, RIGHT, 0.8),  # a second cat, where none is: a false alarm behind it
    proposal(3, [0, 0, 30, 38], 0.95),  # a cat of the crowd: neither right nor wrong
    proposal(1, RIGHT, 0.7),  # a dog where only a class of neither list is: a false alarm before the right one
    proposal(1, [3, 2, 28, 36], 0.6),
    proposal(1, LEFT, 0.5),  # overlaps the one before
    proposal(2, RIGHT, 0.4),
    proposal(2, LEFT, 0.3),
]


def test_the_lists_are_those_of_the_split():
    assert len(ov_coco.NOVEL) == 17 and len(ov_coco.BASE) == 48 and len(set(ov_coco.CLASSES)) == 65


def test_figures_are_those_of_a_calculation_by_hand(folder):
    """Cat 51/101; dog: found at precision 1/2, so 0.5; person 1; no cup."""
    figures = ask(folder, proposals=PROPOSALS)
    values = figures.values
    assert values["ap50_by_class"]["cat"] == pytest.approx(HALF) and values["ap50_by_class"]["cup"] is None
    assert values["ap50_novel"] == pytest.approx((HALF + 0.5) / 2) and values["ap50_base"] == pytest.approx(1.0)
    assert values["ap50"] == pytest.approx((HALF + 1.5) / 3)
    assert (values["novel_classes_with_boxes"], values["base_classes_with_boxes"]) == (2, 1)
    assert (values["boxes"], values["found_by_proposals"], values["top1_of_found"]) == (4, 1.0, 0.75)
    assert figures.outcomes["top1_of_found"] == {"0.png": (1, 1), "1.png": (1, 1), "2.png": (1, 2)}
    assert figures.skipped == {} and "proposals of proposals.json" in figures.protocol


def test_annotated_boxes_are_the_proposals_where_none_are_given(folder):
    values = ask(folder).values
    # Both boxes of image 2 are named a person, with equal scores, and the wrong one stands first in the file.
    assert values["ap50_by_class"]["person"] == pytest.approx(0.5)
    assert values["ap50_by_class"]["dog"] == pytest.approx(1.0) and values["proposals"] == 4


@pytest.mark.parametrize("given", [None, PROPOSALS])
def test_average_precision_is_that_of_pycocotools_by_its_own_files(folder, given, capsys):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    torch.manual_seed(0)
    places = torch.rand(60, 4).tolist()
    known = [c["id"] for c in CATEGORIES]
    spread = [
        annotation(n % 4, [40 * x, 20 * y, 4 + 20 * w, 4 + 16 * h], known[n % 4], iscrowd=int(n % 11 == 0))
        for n, (x, y, w, h) in enumerate(places[:30])
    ]
    around = [proposal(n % 4, [40 * x, 20 * y, 4 + 20 * w, 4 + 16 * h], w) for n, (x, y, w, h) in enumerate(places)]
    kept = {}

    def spy(annotations, detections, sides, classes):
        kept.update(detections=detections, sides=sides)
        return before(annotations, detections, sides, classes)

    before, ov_coco.ap50 = ov_coco.ap50, spy
    try:
        values = ask(folder, spread, None if given is None else around).values
    finally:
        ov_coco.ap50 = before
    assert capsys.readouterr().out == ""
    row = {ov_coco.CLASSES.index(c["name"]): c["id"] for c in CATEGORIES if c["name"] in ov_coco.CLASSES}
    results = [
        {"image_id": image, "category_id": row[label], "bbox": kept["sides"][image][box], "score": score}
        for image, own in kept["detections"].items() for box, label, score in zip(*own, strict=True) if label in row
    ]  # fmt: skip
    truth = json.loads((folder / "instances_val2017.json").read_text())
    for number, one in enumerate(truth["annotations"], 1):
        one["id"] = number
    (folder / "numbered.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    peer = COCO(str(folder / "numbered.json"))
    compared = COCOeval(peer, peer.loadRes(str(folder / "results.json")), "bbox")
    compared.params.catIds = [CAT, DOG, PERSON, CUP]
    compared.evaluate()
    compared.accumulate()
    compared.summarize()
    assert values["ap50"] == pytest.approx(compared.stats[1], abs=1e-12) and 0 < values["ap50"] < 1
    for number, name in enumerate(("person", "cat", "dog", "cup")):
        # pycocotools sorts the classes by identifier.
        assert values["ap50_by_class"][name] == pytest.approx(compared.eval["precision"][0, :, number, 0, 2].mean())


def test_what_cannot_be_used_is_counted_by_cause(folder):
    (folder / "val2017" / "1.png").write_bytes(b"broken")
    bad = [proposal(0, [5, 5, 0, 5], 0.5), proposal(0, LEFT, 1.5), proposal(0, [1], 0.5), proposal(99, LEFT, 0.5)]
    figures = ask(folder, [*BOXES, {"image_id": 0, "category_id": CAT}], PROPOSALS + bad, images=5)
    assert figures.asked == 3 and figures.values["ap50_by_class"]["dog"] is None
    assert figures.skipped == {
        "malformed annotation": 1, "missing or unreadable image": 2, "proposal with a score outside 0 to 1": 1,
        "proposal: box of fewer than 4 numbers": 1, "proposal: empty box": 1,
    }  # fmt: skip


def test_nothing_to_find_gives_no_figure_and_no_error(folder):
    values = ask(folder, [], []).values
    assert math.isnan(values["ap50"]) and math.isnan(values["ap50_novel"]) and values["images"] == 4


def test_order_batch_and_limit(folder):
    one = ask(folder, proposals=PROPOSALS).values
    assert ask(folder, BOXES[::-1], PROPOSALS, batch_size=1).values == one
    assert ask(folder, proposals=PROPOSALS, limit=2).values["images"] == 2


def test_a_better_box_of_its_class_drops_one_that_overlaps():
    overlap = overlaps([LEFT, [3, 2, 28, 36], RIGHT], [LEFT, [3, 2, 28, 36], RIGHT])
    assert overlap.diagonal().tolist() == [1.0] * 3 and overlap[0, 1] > 0.9 and overlap[0, 2] == 0
    found = detect(torch.tensor([[0.5, 0.2], [0.6, 0.1], [0.3, 0.2]]), overlap)
    assert (found.boxes, found.labels) == ([1, 2, 0, 2], [0, 0, 1, 1])


def test_files_of_another_layout_are_refused(folder):
    with pytest.raises(ValueError, match=r"proposals\.json must hold a list of"):
        ask(folder, proposals={"a": 1})
    path = write(folder, BOXES)
    path.write_text(path.read_text().replace('"name"', '"called"'))
    with pytest.raises(ValueError, match="must name classes of COCO, such as airplane, it names none of the 65"):
        ov_coco.evaluate(model(), path, templates=folder / "t.txt")
