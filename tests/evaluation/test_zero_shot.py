"""Zero-shot classification: figures by hand, layouts of ImageNet, names and templates."""

import json
from pathlib import Path

import pytest
import torch

from fgclip_fast.evaluation import class_lists, classes, zero_shot
from tests.evaluation.planted import Planted, grey, unit

TEMPLATES = ["a photo of a {}.", "a drawing of a {}."]


def model(*names, templates=TEMPLATES, **vectors):
    texts = {t.replace("{}", name): vectors.get(name, unit(i)) for i, name in enumerate(names) for t in templates}
    return Planted({n: unit(n) for n in range(4)}, texts)


@pytest.fixture
def templates(tmp_path):
    (tmp_path / "templates.txt").write_text("\n".join(TEMPLATES))
    return tmp_path / "templates.txt"


def test_top_one_and_the_mean_of_classes_are_those_of_a_calculation_by_hand(tmp_path, templates):
    """Three cats of which two are grey 0 (right) and one is grey 1; one dog, right."""
    for name, level in [("cat/a", 0), ("cat/b", 0), ("cat/c", 1), ("dog/d", 1)]:
        grey(tmp_path / "val" / f"{name}.png", level)
    (tmp_path / "val" / "cat" / "broken.png").write_bytes(b"")
    figures = zero_shot.evaluate(model("cat", "dog"), tmp_path / "val", templates=templates)
    assert figures.values["top1"] == 3 / 4 and figures.values["top1_mean_of_classes"] == (2 / 3 + 1) / 2
    assert figures.values["top5"] == 1.0 and figures.values["chance"] == 0.5
    assert figures.skipped == {"missing or unreadable image": 1} and figures.asked == 4
    assert "2 templates of templates.txt" in figures.protocol and "2 classes" in figures.protocol


def test_a_class_is_the_mean_of_unit_texts(tmp_path, templates):
    grey(tmp_path / "val" / "cat" / "a.png", 0)
    grey(tmp_path / "val" / "dog" / "b.png", 1)
    planted = model("cat", "dog")
    planted.texts = {
        "a photo of a cat.": [9, 0, 0, 0], "a drawing of a cat.": [0, 1, 0, 0],  # a long text weighs no more
        "a photo of a dog.": [0.6, 0.8, 0, 0], "a drawing of a dog.": [0.6, 0.8, 0, 0],
    }  # fmt: skip
    figures = zero_shot.evaluate(planted, tmp_path / "val", templates=templates)
    assert figures.values["top1"] == 1.0


def test_a_class_without_images_has_no_figure_and_is_left_out_of_the_mean(tmp_path, templates):
    grey(tmp_path / "val" / "x.png", 0)
    (tmp_path / "val.txt").write_text("x.png 2\nmissing.png 0")
    (tmp_path / "names.txt").write_text("dog\nbird\ncat")
    planted = model("cat", "dog", "bird")
    figures = zero_shot.evaluate(planted, tmp_path / "val", classes=tmp_path / "names.txt", templates=templates)
    assert figures.values["by_class"] == {"0 dog": None, "1 bird": None, "2 cat": 1.0}
    assert figures.values["top1_mean_of_classes"] == 1.0 and figures.values["classes_with_items"] == 1
    assert figures.skipped == {"missing or unreadable image": 1}


def test_an_empty_class_folder_is_a_class_without_a_figure(tmp_path, templates):
    for name, level in [("cat/a", 0), ("dog/b", 1)]:
        grey(tmp_path / "val" / f"{name}.png", level)
    for name in ("bird", ".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / "val" / name).mkdir()
    (tmp_path / "val" / "bird" / "notes.txt").write_text("none yet")
    planted = model("bird", "cat", "dog", bird=unit(1), cat=unit(0), dog=unit(2))
    values = zero_shot.evaluate(planted, tmp_path / "val", templates=templates).values
    assert values["by_class"] == {"0 bird": None, "1 cat": 1.0, "2 dog": 0.0}, "the dog is taken for a bird"
    assert (values["classes"], values["classes_with_items"], values["top1_mean_of_classes"]) == (3, 2, 0.5)


def test_of_equal_scores_the_first_class_wins():
    scores = torch.tensor([[1.0, 1.0, 0.5], [1.0, 1.0, 0.5], [0.0, 2.0, 3.0]])
    assert classes.ranks(scores, torch.tensor([0, 1, 0])).tolist() == [0, 1, 2]


def test_imagenets_names_and_templates_are_open_clips():
    names, templates = classes.imagenet_names(), classes.imagenet_templates()
    assert len(names) == 1000 and names[0] == "tench" and len(templates) == 80
    assert templates[0] == "a bad photo of a {}." and all("{}" in one for one in templates)
    identifiers = sorted(f"n{n:08d}" for n in range(1000))
    assert classes.names_of_folders(identifiers) == names
    numbers = sorted(str(n) for n in range(1000))
    assert classes.names_of_folders(numbers)[:3] == [names[0], names[1], names[10]], "folders 0, 1, 10, …"
    assert classes.names_of_folders(["polar_bear"]) == ["polar bear"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("n.txt", "cat\ndog"), ("n.json", json.dumps(["cat", "dog"])), ("n.txt", "n00000002\tdog\nn00000001\tcat"),
        ("n.txt", "n00000002 dog, hound\nn00000001 cat\nn00000003 bird"),
        ("n.json", json.dumps({"n00000001": "cat", "n00000002": "dog"})),
    ],
)  # fmt: skip
def test_class_files_of_each_kind_are_read(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert classes.read_names(tmp_path / name, ["n00000001", "n00000002"]) == ["cat", "dog"]


def test_the_flat_validation_folder_of_imagenet_is_read_with_its_mapping(tmp_path, templates):
    for number in range(2):
        grey(tmp_path / "val" / f"ILSVRC2012_val_0000000{number}.JPEG", number)
    rows = "ILSVRC2012_val_00000000,n00000001 1 2 3 4\nILSVRC2012_val_00000001,n00000002 1 2 3 4 n00000002 1 2 3 4\n"
    (tmp_path / "LOC_val_solution.csv").write_text(f"ImageId,PredictionString\n{rows}")
    (tmp_path / "LOC_synset_mapping.txt").write_text("n00000001 cat\nn00000002 dog\n")
    more = {"classes": tmp_path / "LOC_synset_mapping.txt", "templates": templates}
    figures = zero_shot.evaluate(model("cat", "dog"), tmp_path / "val", **more)
    assert figures.values["top1"] == 1.0 and "LOC_val_solution.csv" in figures.protocol


def test_cocos_list_is_torchvisions_and_all_its_classes_compete(tmp_path, templates):
    """Of 80 classes three have images, in folders named by name, with an underscore, and by COCO's number."""
    peer = pytest.importorskip("torchvision.models._meta")
    assert ["__background__", *(name or "N/A" for name in class_lists.COCO_NAMES)] == peer._COCO_CATEGORIES
    for name, level in [("Traffic_Light/a", 0), ("toothbrush/b", 1), ("3/c", 2), ("toothbrush/d", 3)]:
        grey(tmp_path / "val" / f"{name}.png", level)
    (tmp_path / "val" / "not a class").mkdir()
    names = [name for name in class_lists.COCO_NAMES if name]
    planted = model(*names, **{name: [0.1] * 4 for name in names})
    planted.texts |= {
        t.replace("{}", name): unit(n) for n, name in enumerate(["traffic light", "toothbrush", "car", "hair drier"])
        for t in TEMPLATES
    }  # fmt: skip
    figures = zero_shot.evaluate(planted, tmp_path / "val", classes=Path("coco"), templates=templates)
    assert figures.values["top1"] == 3 / 4, "grey 3 is a toothbrush, and taken for a hair drier, which has no folder"
    assert (figures.values["classes"], figures.values["classes_with_items"]) == (80, 3)
    assert figures.values["by_class"]["2 car"] == 1.0 and figures.values["by_class"]["79 toothbrush"] == 0.5
    assert figures.protocol.startswith("class folders among COCO's 80 classes: all images, 80 classes")


@pytest.mark.parametrize("classes", ["lvis", "named"])
def test_lviss_list_is_that_of_its_annotations(tmp_path, templates, classes):
    """The names of a file of annotations in its order of identifiers, found or named."""
    categories = [{"id": 7, "name": "flip-flop_(sandal)"}, {"id": 2, "name": "aerosol_can"}, {"id": 9, "name": "cat"}]
    whole = {"images": [], "annotations": [], "categories": categories}
    (tmp_path / "lvis").mkdir()
    file = tmp_path / "lvis" / "lvis_v1_val.json"
    file.write_text(json.dumps(whole))
    (tmp_path / "val.txt").write_text("a.png 2\nb.png 7\n")
    for number, name in enumerate("ab"):
        grey(tmp_path / "val" / f"{name}.png", number)
    planted = model("aerosol can", "flip-flop (sandal)", "cat")
    chosen = file if classes == "named" else Path(classes)
    figures = zero_shot.evaluate(planted, tmp_path / "val", classes=chosen, templates=templates)
    assert figures.values["by_class"] == {"0 aerosol can": 1.0, "1 flip-flop (sandal)": 1.0, "2 cat": None}
    assert "flat folder by val.txt among the 3 classes of lvis_v1_val.json" in figures.protocol


def test_a_file_of_annotations_is_read_once(tmp_path, monkeypatch):
    """LVIS's train file has a gigabyte."""
    file = tmp_path / "some.json"
    file.write_text(json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}))
    times, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (times.append(path), read_bytes(path))[1])
    assert class_lists.known(file, []).names == ["cat"] and times == [file]


@pytest.mark.parametrize("content", ['["cat"]', '{"n1": "cat"}', '{"categories": [', '{"categories": []}'])
def test_another_json_file_is_no_list(tmp_path, content):
    """What reads names takes it, or refuses it."""
    (tmp_path / "names.json").write_text(content)
    assert class_lists.known(tmp_path / "names.json", []) is None


def test_imagenets_list_takes_names_numbers_and_identifiers(tmp_path):
    listed = class_lists.known(Path("imagenet"), [])
    names = classes.imagenet_names()
    assert listed.names == names and listed.rows_of(["tench", "7", "GREAT_WHITE_SHARK"]) == [0, 7, 2]
    assert listed.rows_of(["missile"]) == [names.index("missile")] and names.count("missile") == 2
    identifiers = [f"n{n:08d}" for n in range(1000)]
    assert zero_shot._rows(identifiers, identifiers, Path("imagenet"), listed)[0] == names


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("coco", "COCO's 80 classes must have each class of the images, it has no 'dragon'"),
        ("lvis", "LVIS's names are read from lvis_v1_val.json, which is not in .*; name it"),
        ("objects365", "must be a file, or imagenet, coco or lvis, got objects365"),
    ],
)
def test_a_list_that_is_not_there_is_refused(tmp_path, templates, classes, message):
    grey(tmp_path / "val" / "dragon" / "a.png", 0)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        zero_shot.evaluate(model("cat"), tmp_path / "val", classes=Path(classes), templates=templates)


def test_batch_size_and_limit(tmp_path, templates):
    for number in range(6):
        grey(tmp_path / "val" / "cat" / f"{number}.png", number % 2)
        grey(tmp_path / "val" / "dog" / f"{number}.png", 1)
    whole = zero_shot.evaluate(model("cat", "dog"), tmp_path / "val", templates=templates).values
    assert zero_shot.evaluate(model("cat", "dog"), tmp_path / "val", templates=templates, batch_size=1).values == whole
    some = zero_shot.evaluate(model("cat", "dog"), tmp_path / "val", templates=templates, limit=4).values
    assert some["questions"] == 4 and some["classes_with_items"] == 2, "spread over the classes"


@pytest.mark.parametrize(
    ("folders", "names", "message"),
    [
        (["n00000001"], None, "1 folders are called like ImageNet's 1,000"),
        (["cat"], "cat\ndog", "must hold a name for each of 1 classes, got 2"),
        (["cat"], "dog\thound", "must name each folder, it lacks cat"),
        ([], None, "must hold a folder for each class"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, templates, folders, names, message):
    (tmp_path / "val").mkdir()
    for folder in folders:
        grey(tmp_path / "val" / folder / "a.png", 0)
    if names:
        (tmp_path / "names.txt").write_text(names)
    with pytest.raises(ValueError, match=message):
        own = tmp_path / "names.txt" if names else None
        zero_shot.evaluate(model("cat"), tmp_path / "val", classes=own, templates=templates)


def test_a_template_without_a_place_for_the_name_is_refused(tmp_path):
    (tmp_path / "t.txt").write_text("a photo")
    with pytest.raises(ValueError, match=r"must hold \{\} in the place of the class name, got 'a photo'"):
        classes.read_templates(tmp_path / "t.txt")
