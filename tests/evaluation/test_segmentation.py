"""Zero-shot segmentation: intersection over union by hand, ignored labels, synonyms, published layouts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip_fast import suites
from fgclip_fast.config import Data
from fgclip_fast.evaluation import labelled_pixels, segmentation
from fgclip_fast.suites import Task
from tests.evaluation.planted import STEP, Planted, unit


def model(*names):
    return Planted({n: unit(n) for n in range(4)}, {f"a {name}": unit(n) for n, name in enumerate(names)})


def halves(path, left=0, right=1):
    """An image of 64 x 64, its left and right half of two grey levels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (64, 64), (left * STEP,) * 3)
    image.paste((right * STEP,) * 3, (32, 0, 64, 64))
    image.save(path, "PNG")


def label(path, left=0, right=1, **patches):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((64, 64), left, np.uint8)
    pixels[:, 32:] = right
    for value, rows in patches.items():
        pixels[slice(*rows)] = int(value.removeprefix("v"))
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    halves(tmp_path / "images" / "a.png")
    (tmp_path / "classes.txt").write_text("cat\ndog\nbird\n")
    (tmp_path / "t.txt").write_text("a {}")
    return tmp_path


def test_intersection_over_union_is_that_of_a_calculation_by_hand(folder):
    """16 of 64 rows are cats though the right half shows a dog, 16 rows are not labelled, and there is no bird."""
    label(folder / "labels" / "a.png", v0=(0, 16), v255=(48, 64))
    figures = segmentation.evaluate(model("cat", "dog", "bird"), folder, templates=folder / "t.txt")
    half = 32
    cat = 48 * half / (48 * half + 16 * half)
    dog = 32 * half / (48 * half)
    assert figures.values["iou_by_class"] == {"0 cat": cat, "1 dog": dog, "2 bird": None}
    assert figures.values["miou"] == pytest.approx((cat + dog) / 2) and figures.values["pixel_accuracy"] == 80 / 96
    assert (figures.asked, figures.skipped, figures.values["classes_with_pixels"]) == (1, {}, 2)
    assert "short side 48, windows of 32 by steps of 16" in figures.protocol


@pytest.mark.parametrize("classes", ["coco", "annotations.json"])
def test_a_list_of_zero_shot_is_refused_in_words(folder, classes):
    label(folder / "labels" / "a.png")
    (folder / "annotations.json").write_text("{}")
    chosen = Path(classes) if classes == "coco" else folder / classes
    with pytest.raises(ValueError, match=rf"segmentation takes a text file with a class a line.*, got .*{classes}"):
        segmentation.evaluate(model("cat", "dog", "bird"), folder, classes=chosen, templates=folder / "t.txt")


def test_the_nearest_synonym_counts_for_its_class(folder):
    label(folder / "labels" / "a.png", left=1, right=1)
    (folder / "classes.txt").write_text("bird\ncat, dog\n")
    figures = segmentation.evaluate(model("cat", "dog", "bird"), folder, templates=folder / "t.txt")
    assert figures.values["iou_by_class"] == {"0 bird": None, "1 cat": 1.0}


def test_ades_labels_count_from_one_and_zero_is_not_asked(tmp_path):
    halves(tmp_path / "images" / "validation" / "a.jpg")
    label(tmp_path / "annotations" / "validation" / "a.png", left=1, right=2, v0=(0, 32))
    rows = "1\t.1\t1\t1\t1\tcat, kitty\n2\t.1\t1\t1\t0\tdog\n"
    (tmp_path / "objectInfo150.txt").write_text(f"Idx\tRatio\tTrain\tVal\tStuff\tName\n{rows}")
    (tmp_path / "t.txt").write_text("a {}")
    planted = Planted({n: unit(n) for n in range(2)}, {"a cat": unit(0), "a kitty": unit(3), "a dog": unit(1)})
    figures = segmentation.evaluate(planted, tmp_path, templates=tmp_path / "t.txt")
    assert figures.values["miou"] == 1.0 and figures.protocol.startswith("ade, 2 classes, label 0 ignored")


@pytest.mark.parametrize(("count", "miou"), [(20, 1.0), (21, 0.0)])
def test_voc_takes_its_list_and_leaves_the_background_out_for_twenty_classes(tmp_path, count, miou):
    for name in "ab":
        halves(tmp_path / "JPEGImages" / f"{name}.jpg")
    label(tmp_path / "SegmentationClass" / "a.png", left=1, right=2)
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nmissing\nb\n")
    names = [f"class {n}" for n in range(count)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    (tmp_path / "t.txt").write_text("a {}")
    planted = Planted({n: unit(n) for n in range(2)}, {f"a {n}": unit(min(i, 3)) for i, n in enumerate(names)})
    figures = segmentation.evaluate(planted, tmp_path, classes=tmp_path / "names.txt", templates=tmp_path / "t.txt")
    assert figures.asked == 1 and figures.skipped == {"missing or unreadable image or label": 2}
    # Of 21 the left half shows class 0 where class 1 is labelled; the right half shows class 1, labelled 2.
    assert figures.values["miou"] == miou


@pytest.mark.parametrize(
    ("background", "right"),
    [(None, (0, 1)), (0.0, (0, 1)), (0.24, (0, 1)), (0.26, (1, 1)), (0.998, (1, 1)), (0.999, (1, 0))],
)
def test_pixels_without_a_class_of_enough_share_are_background(tmp_path, background, right):
    """The sky is equally near to four classes, the cat has cosine 0.2 with one text, its own, and 0 with four.

    So the share of the nearest is 1/4, whatever the factor, and exp(40 x 0.2) / (exp(40 x 0.2) + 4) = 0.99866.
    """
    for name, level in (("sky", 0), ("cat", 1)):
        halves(tmp_path / "images" / f"{name}.png", level, level)
        label(tmp_path / "labels" / f"{name}.png", level, level)
    (tmp_path / "classes.txt").write_text("sky\ncat\ndog\nbird\ncow\n")
    (tmp_path / "t.txt").write_text("a {}")
    texts = {f"a {name}": unit(n, 6) for n, name in enumerate(("sky", "cat", "dog", "bird", "cow"))}
    planted = Planted({0: [0, 0.5, 0.5, 0.5, 0.5, 0], 1: [0, 0.2, 0, 0, 0, 0.96**0.5]}, texts)
    more = {} if background is None else {"background": background}
    figures = segmentation.evaluate(planted, tmp_path, templates=tmp_path / "t.txt", **more)
    found = {name: hits for name, (hits, _) in figures.outcomes["pixel_accuracy"].items()}
    assert {name.split("/")[-1]: hits for name, hits in found.items()} == {
        "sky.png": 64 * 64 * right[0], "cat.png": 64 * 64 * right[1]
    }  # fmt: skip
    wanted = f"first class below {background:g} of the softmax of 40 cosines" if background else "no threshold"
    assert figures.protocol.endswith(wanted)


def test_the_threshold_is_of_the_nearest_synonym_and_of_the_first_class():
    """Two synonyms of one class share a softmax of 1/2 each: neither has 0.6 of it, though the class would have all."""
    cosines = torch.tensor([[[0.1, 0.1]], [[0.9, 0.9]], [[0.9, 0.1]]])
    owner = torch.tensor([0, 1, 1])
    assert segmentation._predict(cosines, owner, 0.0).tolist() == [[1, 1]]
    assert segmentation._predict(cosines, owner, 0.4).tolist() == [[1, 1]]
    assert segmentation._predict(cosines, owner, 0.6).tolist() == [[0, 1]]


def voc(path, folder="SegmentationClass", listed="Segmentation"):
    """One image, whose left half is the first class and whose right half is the second."""
    halves(path / "JPEGImages" / "a.jpg")
    label(path / folder / "a.png", left=1, right=2)
    (path / "ImageSets" / listed).mkdir(parents=True)
    (path / "ImageSets" / listed / "val.txt").write_text("a\n")


def test_voc_has_names_of_its_own_and_other_sets_a_file_of_theirs(tmp_path):
    """Of several sets in one folder each has the names that are its own."""
    sets = tmp_path / "VOCdevkit"
    voc(sets / "VOC2012")
    voc(sets / "VOC2010", "SegmentationClassContext", "SegmentationContext")
    (tmp_path / "cls_context59.txt").write_text("\n".join(["sky", "grass, lawn", *(f"class {n}" for n in range(57))]))
    (tmp_path / "t.txt").write_text("a {}")
    names = [*labelled_pixels.VOC, "sky", "grass", "lawn", *(f"class {n}" for n in range(57))]
    planted = Planted(
        {n: unit(n) for n in range(2)},
        {f"a {name}": unit({"aeroplane": 0, "sky": 0, "bicycle": 1, "lawn": 1}.get(name, 3)) for name in names},
    )
    task = Task(data=Data(), questions=tmp_path, several=True, templates=tmp_path / "t.txt")
    found = suites.evaluate(planted, ["segmentation"], task)
    assert {name: figures.values["miou"] for name, figures in found.items()} == {
        "segmentation/voc": 1.0, "segmentation/context": 1.0
    }  # fmt: skip
    assert "voc, 20 classes, label 0 ignored" in found["segmentation/voc"].protocol
    assert "context, 59 classes, label 0 ignored" in found["segmentation/context"].protocol
    assert len({figures.data["classes"] for figures in found.values()}) == 2
    (tmp_path / "cls_voc21.txt").write_text("\n".join(["sky", *labelled_pixels.VOC]))
    found = suites.evaluate(planted, ["segmentation"], task)
    assert "voc, 21 classes:" in (protocol := found["segmentation/voc"].protocol)
    assert protocol.endswith("first class below 0.1 of the softmax of 40 cosines"), "SCLIP's threshold for VOC21"
    found = suites.evaluate(planted, ["segmentation"], replace(task, background=0.0))
    assert found["segmentation/voc"].protocol.endswith("no threshold")
    found = suites.evaluate(planted, ["segmentation"], replace(task, background=0.3))
    assert found["segmentation/voc"].protocol.endswith("first class below 0.3 of the softmax of 40 cosines")
    assert found["segmentation/context"].protocol.endswith("no threshold"), "label 0 is not asked"


def test_batch_size_does_not_matter(folder):
    halves(folder / "images" / "b.png", 1, 0)
    for name in "ab":
        label(folder / "labels" / f"{name}.png")
    planted = model("cat", "dog", "bird")
    one = segmentation.evaluate(planted, folder, templates=folder / "t.txt", batch_size=1).values
    assert segmentation.evaluate(planted, folder, templates=folder / "t.txt").values == one
    assert segmentation.evaluate(planted, folder, templates=folder / "t.txt", limit=1).asked == 1


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must hold JPEGImages/ and SegmentationClass/ \(voc\)"):
        segmentation.evaluate(model(), tmp_path)
    halves(tmp_path / "images" / "a.png")
    label(tmp_path / "labels" / "a.png")
    with pytest.raises(ValueError, match=r"has none of classes.txt, objectInfo150.txt, so give a file"):
        segmentation.evaluate(model(), tmp_path)
