"""Formats of annotation tools and public data sets: a row for each flaw, counted by cause; every box by its pixels."""

import base64
import json
from collections import namedtuple
from urllib.parse import quote

import pytest

from fgclip_fast.data import causes
from fgclip_fast.data.importers.formats import recognise
from fgclip_fast.data.importers.source import Options, Source
from fgclip_fast.inputs import boxes
from tests import annotation_formats as formats

Case = namedtuple("Case", "format flaw edit counts")
"""``edit`` makes the flaw in the folder, given the pictures and their folder; ``counts``: what is left out by cause."""


def replaced(name, old, new):
    """An edit of a text file: the first occurrence."""

    def edit(folder, drawn, photos):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return edit


def written(name, content):
    """An edit that writes a whole file."""
    return lambda folder, drawn, photos: (folder / name).write_bytes(content)


def deleted(name):
    """An edit that deletes a file."""
    return lambda folder, drawn, photos: (folder / name).unlink()


def changed(name, change):
    """An edit of a JSON file by a function of its value."""

    def edit(folder, drawn, photos):
        value = json.loads((folder / name).read_text())
        change(value)
        (folder / name).write_text(json.dumps(value))

    return edit


def without_photo(name):
    """An edit that deletes a picture."""
    return lambda folder, drawn, photos: (photos / name).unlink()


def nothing(folder, drawn, photos):
    """No flaw."""


LABELS, VOC = "labels/train", "VOC2012/Annotations"
CASES = [
    Case("yolo", "none", nothing, {}),
    Case("yolo", "unknown class", written(f"{LABELS}/3.txt", b"7 0.5 0.5 0.1 0.1\n"),
         {causes.NO_TEXT: 1}),
    Case("yolo", "class of words", replaced(f"{LABELS}/3.txt", "0 ", "red "), {causes.NO_EXPRESSION: 1}),
    Case("yolo", "words", replaced(f"{LABELS}/3.txt", "0 0", "0 x"), {boxes.WRONG_TYPE: 1}),
    Case("yolo", "short line", replaced(f"{LABELS}/3.txt", "0 ", "0 0.5 0.5\n0 "), {boxes.SHORT: 1}),
    Case("yolo", "outside", replaced(f"{LABELS}/3.txt", "0 ", "0 1.5 0.5 0.2 0.2\n0 "), {boxes.OUTSIDE: 1}),
    Case("yolo", "label without image", written(f"{LABELS}/gone.txt", b"0 0.5 0.5 0.1 0.1\n"), {causes.NO_IMAGE: 1}),
    Case("yolo", "no label file", deleted(f"{LABELS}/3.txt"), {causes.NO_TEXT: 1}),
    Case("yolo", "cut image", written("images/train/3.png", b"\x89PNG\r\n"), {causes.CORRUPT_IMAGE: 1}),
    Case("voc", "none", nothing, {}),
    Case("voc", "broken XML", written(f"{VOC}/3.xml", b"<annotation><object>"), {causes.NOT_XML: 1}),
    Case("voc", "entities", written(f"{VOC}/3.xml", b'<!DOCTYPE a [<!ENTITY e "ee">]><annotation>&e;</annotation>'),
         {causes.NOT_XML: 1}),
    Case("voc", "inverted", replaced(f"{VOC}/3.xml", "<xmin>", "<xmin>9"), {boxes.INVERTED: 1}),
    Case("voc", "no box", replaced(f"{VOC}/3.xml", "<object>", "<object><name>red</name></object><object>"),
         {boxes.SHORT: 1}),
    Case("voc", "no name", replaced(f"{VOC}/3.xml", "<name>red_thing</name>", ""), {causes.NO_EXPRESSION: 1}),
    Case("voc", "other size", replaced(f"{VOC}/3.xml", "<width>", "<width>9"), {causes.OTHER_SIZE: 1}),
    Case("voc", "no suffix", replaced(f"{VOC}/3.xml", ".png", ""), {}),
    Case("voc", "renamed image", replaced(f"{VOC}/3.xml", "3.png", "DSC_1.JPG"), {}),
    Case("voc", "missing image", deleted("VOC2012/JPEGImages/3.png"), {causes.NO_IMAGE: 1}),
    Case("cvat", "none", nothing, {}),
    Case("cvat", "words", replaced("annotations.xml", 'xtl="', 'xtl="x'), {boxes.WRONG_TYPE: 1}),
    Case("cvat", "empty polygon", replaced("annotations.xml", '<polygon label="green_thing" points="',
         '<polygon label="green_thing" points=""/><polygon label="green_thing" points="'), {boxes.SHORT: 1}),
    Case("cvat", "missing image", without_photo("3.png"), {causes.NO_IMAGE: 1}),
    Case("cvat", "cut off", lambda folder, *_: (folder / "annotations.xml").write_text(
         (folder / "annotations.xml").read_text() + "<image"), {causes.NOT_XML: 1}),
    Case("labelme", "none", nothing, {}),
    Case("labelme", "broken JSON", written("3.json", b'{"shapes": ['), {causes.NOT_JSON: 1}),
    Case("labelme", "not UTF-8", written("3.json", b'{"shapes": ["\xff"]}'), {causes.NOT_UTF8: 1}),
    Case("labelme", "one point", changed("3.json", lambda v: v["shapes"][0].update(points=[[3, 3]])),
         {boxes.EMPTY: 1}),
    Case("labelme", "null label", changed("3.json", lambda v: v["shapes"][0].update(label=None)),
         {causes.NO_EXPRESSION: 1}),
    Case("labelme", "missing image", deleted("3.png"), {causes.NO_IMAGE: 1}),
    Case("labelme", "path of Windows", changed("3.json", lambda v: v.update(imagePath="..\\photos\\3.png")), {}),
    Case("refcoco", "none", nothing, {}),
    Case("refcoco", "no sentence", changed("refs(unc).json", lambda v: v[0].update(sentences=[{"sent": " "}])),
         {causes.NO_EXPRESSION: 1}),
    Case("refcoco", "empty box", changed("instances.json", lambda v: v["annotations"][0].update(bbox=[1, 1, 0, 5])),
         {boxes.EMPTY: 1}),
    Case("refcoco", "missing image", without_photo("3.png"), {causes.NO_IMAGE: 1}),
    Case("visual_genome", "none", nothing, {}),
    Case("visual_genome", "no sizes", deleted("image_data.json"), {}),
    Case("visual_genome", "no entry", changed("region_descriptions.json", lambda v: v.append("x")),
         {causes.WRONG_TYPE: 1}),
    Case("visual_genome", "no area", changed("region_descriptions.json", lambda v: v[0]["regions"][0].update(width=0)),
         {boxes.EMPTY: 1}),
    Case("visual_genome", "no phrase", changed("region_descriptions.json", lambda v: v[0]["regions"][0].update(
         phrase=None)), {causes.NO_EXPRESSION: 1}),
    Case("visual_genome", "missing image", without_photo("VG_100K/3.jpg"), {causes.NO_IMAGE: 1}),
    Case("flickr30k_entities", "none", nothing, {}),
    Case("flickr30k_entities", "broken XML", written("Annotations/3.xml", b"<annotation>"), {causes.NOT_XML: 1}),
    Case("flickr30k_entities", "not UTF-8", written("Sentences/3.txt", b"[/EN#1/x \xff]"), {causes.NOT_UTF8: 1}),
    Case("flickr30k_entities", "words", replaced("Annotations/3.xml", "<xmin>", "<xmin>x"), {boxes.WRONG_TYPE: 1}),
    Case("flickr30k_entities", "missing image", deleted("flickr30k-images/3.jpg"), {causes.NO_IMAGE: 1}),
    Case("open_images", "none", nothing, {}),
    Case("open_images", "unknown class", replaced("train-annotations-bbox.csv", "/m/00", "/m/77"),
         {causes.NO_EXPRESSION: 1}),
    Case("open_images", "words", replaced("train-annotations-bbox.csv", "/m/00,1,", "/m/00,1,x"),
         {boxes.WRONG_TYPE: 1}),
    Case("open_images", "missing image", without_photo(f"{3:016x}.jpg"), {causes.NO_IMAGE: 1}),
]  # fmt: skip
# Of each format without a flaw.
SPLITS = {"yolo": (12, 5, 3), "voc": (12, 8, 0), "cvat": (15, 5, 0), "labelme": (20, 0, 0), "refcoco": (15, 2, 3),
          "visual_genome": (20, 0, 0), "flickr30k_entities": (14, 3, 3), "open_images": (14, 6, 0)}  # fmt: skip


def left_out(found):
    return {cause: n for cause, n in found.items() if cause not in causes.FILLED}


@pytest.fixture
def prepared(tmp_path, drawn):
    """Writes a format into a folder beside the photos."""

    def write(name, **options):
        folder = tmp_path / "set"
        folder.mkdir()
        return folder, getattr(formats, name)(folder, drawn, tmp_path / "photos", **options)

    return write


IN_PLACE = ("yolo", "voc", "labelme", "flickr30k_entities")  # formats that hold their images


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.format}, {case.flaw}")
def test_a_flaw_is_counted_and_every_other_box_surrounds_its_pixels(
    tmp_path, drawn, prepared, importing, check_pixels, case
):
    folder, source = prepared(case.format)
    case.edit(folder, drawn, tmp_path / "photos")
    images = None if case.format in IN_PLACE else tmp_path / "photos"
    assert recognise(Source((source,)), Options(images))[0] == case.format
    records, found = importing(source, images=images)
    assert left_out(found) == case.counts
    added = case.flaw in ("label without image", "no entry", "cut off")
    refused = 0 if added else sum(n for cause, n in case.counts.items() if cause in causes.BAD)
    if case.flaw == "none":
        assert (records["train"], records["val"], records["test"]) == SPLITS[case.format]
    assert sum(records.values()) == 20 - refused
    extra = case.flaw in ("short line", "outside", "no box", "empty polygon")
    dropped = 0 if extra else sum(n for cause, n in case.counts.items() if cause in causes.DROPPED)
    assert check_pixels(tmp_path / "out") == 60 - 3 * refused - dropped


def edited(source, change):
    value = json.loads(source.read_text())
    change(value)
    source.write_text(json.dumps(value))
    return source


@pytest.mark.parametrize("layout", ["list of names", "../train/images", "no path", "polygons", "pose", "classes.txt"])
def test_yolo_folders_as_different_tools_write_them(tmp_path, drawn, prepared, importing, check_pixels, layout):
    folder, _ = prepared("yolo", polygons=layout == "polygons")
    described = folder / "data.yaml"
    if layout == "list of names":
        described.write_text("train: images/train\nval: images/valid\ntest: images/test\nnames: [red, green, blue]")
    elif layout == "../train/images":  # Roboflow's, which start from a folder that does not exist
        for split in ("train", "valid", "test"):
            (folder / split).mkdir()
            for name in ("images", "labels"):
                (folder / name / split).rename(folder / split / name)
        splits = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
        described.write_text(f"{splits}nc: 3\nnames: ['red', 'green', 'blue']\n")
    elif layout == "no path":  # and a list of images in place of a folder
        names = [f"./images/train/{picture.name}" for picture in drawn[:12]]
        (folder / "train.txt").write_text("\n".join(names))
        described.write_text("train: train.txt\nval: [images/valid, images/test]\nnames: {0: red, 1: green, 2: blue}")
    elif layout == "pose":
        described.write_text(f"kpt_shape: [2, 3]\n{described.read_text()}")
        for label in (folder / "labels").rglob("*.txt"):
            label.write_text("\n".join(f"{row} 0.1 0.1 2 0.9 0.9 2" for row in label.read_text().splitlines()))
    elif layout == "classes.txt":
        described.unlink()
        (folder / "classes.txt").write_text("\n".join(formats.CLASSES))
    assert importing(folder, images=None, template="a {}")[0].total() == 20 and check_pixels(tmp_path / "out") == 60


def test_a_yolo_folder_whose_images_lie_elsewhere_names_the_missing_folders(tmp_path, drawn, prepared, importing):
    folder, _ = prepared("yolo")
    (folder / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"data.yaml names images/train, .*, images/test, which do not exist"):
        importing(folder, images=None)


def test_the_template_makes_the_text_of_a_class(tmp_path, drawn, prepared, importing, records_of):
    importing(prepared("voc")[1], images=None, template="a photo of a {}")
    assert next(records_of(tmp_path / "out"))[1]["bbox_info"][0]["short_expr"] == "a photo of a red thing"


def test_a_field_may_hold_the_text(tmp_path, drawn, prepared, importing, records_of):
    importing(prepared("cvat")[1], text_field="note")
    texts = [region["short_expr"] for region in next(records_of(tmp_path / "out"))[1]["bbox_info"]]
    assert texts == ["a red note 0", "green thing", "blue thing"]


def test_val_divides_anew_in_place_of_the_source_s_split(tmp_path, drawn, prepared, importing):
    source = prepared("yolo")[1]
    assert importing(source, images=None, val=0)[0] == {"train": 20, "val": 0}
    assert importing(source, "again", images=None, val=1)[0] == {"train": 0, "val": 20}


def test_a_duplicate_is_of_the_split_that_is_held_out_most(tmp_path, drawn, prepared, importing):
    folder, source = prepared("yolo")
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        content = (folder / kind / "train" / f"0.{suffix}").read_bytes()
        (folder / kind / "test" / f"copy.{suffix}").write_bytes(content)
    written, _ = importing(source, images=None)
    assert (written["train"], written["val"], written["test"]) == (11, 5, 5)


def test_voc_without_a_devkit_and_with_polygons(tmp_path, drawn, importing, check_pixels):
    for picture in drawn:
        text = formats.voc_xml(picture)
        x1, y1, x2, y2 = picture.boxes["red"]
        box = f"<xmax>{x2}</xmax><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><ymax>{y2}</ymax>"
        points = f"<x1>{x1}</x1><y1>{y1}</y1><x2>{x2}</x2><y2>{y1}</y2><x3>{x1}</x3><y3>{y2}</y3>"
        assert box in text
        text = text.replace(f"<bndbox>{box}</bndbox>", f"<polygon>{points}</polygon>", 1)
        (tmp_path / "photos" / picture.name).with_suffix(".xml").write_text(text)
    assert importing(tmp_path / "photos", images=None)[0]["train"] == 20 and check_pixels(tmp_path / "out") == 60


def test_xml_that_multiplies_entities_ends_at_once(tmp_path, drawn, prepared, importing, check_pixels):
    folder, source = prepared("voc")
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "e" * 999}">' for i in range(12))
    bomb = f"<!DOCTYPE annotation [{entities}]><annotation><filename>&e11;</filename></annotation>"
    (folder / "VOC2012" / "Annotations" / "3.xml").write_text(bomb)
    assert left_out(importing(source, images=None)[1]) == {causes.NOT_XML: 1}
    assert "document type" in (tmp_path / "out" / "refused.csv").read_text()


def test_a_turned_box_and_an_ellipse_become_the_boxes_around_them(tmp_path, drawn, importing, records_of):
    picture = drawn[0]
    size = f'width="{picture.width}" height="{picture.height}"'
    shapes = (
        '<box label="a" xtl="20" ytl="40" xbr="60" ybr="50" rotation="90"/><ellipse label="b" cx="30" cy="40" rx="9"'
        ' ry="5"/>'
    )
    image = f'<image id="0" name="{picture.name}" {size}>{shapes}<tag label="indoors"/></image>'
    (tmp_path / "cvat.xml").write_text(f"<annotations>{image}</annotations>")
    importing(tmp_path / "cvat.xml")
    _, record = next(records_of(tmp_path / "out"))
    sides = picture.width, picture.height, picture.width, picture.height
    pixels = [[share * side for share, side in zip(r["bbox"], sides, strict=True)] for r in record["bbox_info"]]
    assert pixels[0] == pytest.approx([35, 25, 45, 65]) and pixels[1] == pytest.approx([21, 35, 39, 45])
    assert record["short_caption"] == "indoors"


def test_cvat_s_xml_for_video_is_refused(tmp_path, drawn, importing):
    (tmp_path / "cvat.xml").write_text('<annotations><track id="0" label="car"><box frame="0"/></track></annotations>')
    with pytest.raises(ValueError, match=r"is CVAT's XML for video; export it as CVAT for images"):
        importing(tmp_path / "cvat.xml")


def test_labelme_s_image_may_lie_inside_and_a_circle_is_its_box(tmp_path, drawn, prepared, importing, records_of):
    folder, source = prepared("labelme")
    image = base64.b64encode((folder / "3.png").read_bytes()).decode()
    circle = {"label": "ring", "points": [[40, 50], [43, 54]], "shape_type": "circle", "description": "a red ring"}
    edited(folder / "3.json", lambda value: value.update(imageData=image, shapes=[circle]))
    (folder / "3.png").unlink()
    assert importing(source, images=None)[0]["train"] == 20
    record = next(record for _, record in records_of(tmp_path / "out") if record["source"]["key"] == "3.png")
    width, height = drawn[3].width, drawn[3].height
    box = [35 / width, 45 / height, 45 / width, 55 / height]
    assert record["bbox_info"] == [{"bbox": pytest.approx(box), "short_expr": "a red ring"}]


def test_references_give_their_shortest_and_longest_sentence(tmp_path, drawn, prepared, importing, records_of):
    folder, source = prepared("refcoco")
    edited(folder / "refs(unc).json", lambda value: value.__delitem__(slice(0, 4)))  # picture 0, and red of picture 1
    assert importing(source)[0].total() == 19
    regions = next(records_of(tmp_path / "out", "train"))[1]["bbox_info"]
    assert [region["short_expr"] for region in regions] == ["green", "blue"]
    assert regions[0]["long_expr"] == "the green one of 1"
    assert regions[0]["expressions"] == ["green", "green left", "the green one of 1"]


def test_references_as_a_pickle_are_never_loaded(tmp_path, drawn, prepared, importing):
    folder, source = prepared("refcoco")
    (folder / "refs(unc).json").rename(folder / "refs(unc).p")
    with pytest.raises(ValueError, match=r"is a pickle, which is not read, .* python -c .*open\('refs\(unc"):
        importing(source)


@pytest.mark.parametrize(
    "edit, message",
    [(lambda folder: (folder / "instances.json").unlink(), "needs instances.json, with the boxes"),
     (lambda folder: (folder / "refs(google).json").write_bytes((folder / "refs(unc).json").read_bytes()),
      "must hold one file of references, got refs.google..json, refs.unc..json")],
)  # fmt: skip
def test_references_that_cannot_be_joined_are_refused(tmp_path, drawn, prepared, importing, edit, message):
    folder, source = prepared("refcoco")
    edit(folder)
    with pytest.raises(ValueError, match=message):
        importing(source)


def test_flickr30k_entities_joins_phrases_of_one_thing_and_captions(tmp_path, drawn, prepared, importing, records_of):
    importing(prepared("flickr30k_entities")[1], images=None)
    _, record = next(records_of(tmp_path / "out", "test"))
    assert record["captions"] == [
        "A red thing beside a green thing of all 17 .",
        "Two blue things and red 17 .",
    ]
    texts = [(region["short_expr"], region.get("long_expr")) for region in record["bbox_info"]]
    assert texts == [("red", "A red thing"), ("a green thing", None), ("Two blue things", None)]


def test_open_images_leaves_groups_out_and_needs_the_names_of_classes(
    tmp_path, drawn, prepared, importing, check_pixels
):
    folder, source = prepared("open_images")
    replaced("train-annotations-bbox.csv", ",0,0\n", ",0,1\n")(folder, drawn, None)
    importing(source)
    assert check_pixels(tmp_path / "out") == 59
    (folder / "class-descriptions-boxable.csv").unlink()
    with pytest.raises(ValueError, match=r"names classes by numbers such as /m/.*, and needs the class-descriptions"):
        importing(source, "again")


@pytest.mark.parametrize(
    "name",
    [
        "images/3f2a91bc-{}",
        "..\\images\\{}",
        "/data/upload/7/3f2a91bc-{quoted}",
        "/data/local-files/?d=photos/{quoted}",
    ],
)
def test_label_studio_s_names_of_images_are_understood(tmp_path, drawn, importing, check_pixels, name):
    (tmp_path / "photos" / "0.png").rename(tmp_path / "photos" / "0 ä.png")
    drawn = [drawn[0]._replace(name="0 ä.png"), *drawn[1:]]
    value = formats.coco_json(drawn)
    for image in value["images"]:
        image["file_name"] = name.format(image["file_name"], quoted=quote(image["file_name"]))
    (tmp_path / "result.json").write_text(json.dumps(value))
    assert importing(tmp_path / "result.json")[0]["train"] == 20 and check_pixels(tmp_path / "out") == 60


def test_cvat_s_coco_lies_beside_its_images_and_has_attributes(tmp_path, drawn, importing, check_pixels, records_of):
    value = formats.coco_json(drawn)
    for annotation in value["annotations"]:
        annotation |= {"attributes": {"note": f"red note {annotation['id']}", "occluded": False}, "segmentation": []}
    del value["annotations"][1:]
    (tmp_path / "export" / "images").mkdir(parents=True)
    (tmp_path / "photos").rename(tmp_path / "export" / "images" / "default")
    (tmp_path / "export" / "annotations").mkdir()
    (tmp_path / "export" / "annotations" / "instances_default.json").write_text(json.dumps(value))
    written, found = importing(tmp_path / "export", images=None, text_field="note")
    assert written["train"] == 1 and found[causes.NO_TEXT] == 19 and check_pixels(tmp_path / "out") == 1
    assert next(records_of(tmp_path / "out"))[1]["bbox_info"][0]["short_expr"] == "red note 0"
