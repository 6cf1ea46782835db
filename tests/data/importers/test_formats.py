"""Each format: recognised by content, its boxes where the pixels are, its flaws counted by cause."""

import io
import json
import tarfile

import pytest

from fgclip_fast.data import causes
from fgclip_fast.data.importers.formats import FORMATS, recognise
from fgclip_fast.data.importers.source import Options, Source
from fgclip_fast.inputs import boxes


def of(path, **options):
    """Name of the recognised format."""
    return recognise(Source((path,)), Options(**options))[0]


def refused(found):
    return {cause: n for cause, n in found.items() if cause not in causes.FILLED}


def write_json(path, value, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, **options))
    return path


def coco(drawn, **more):
    """COCO's JSON of instances, and of captions."""
    images = [{"id": i, "file_name": d.name, "width": d.width, "height": d.height} for i, d in enumerate(drawn)]
    annotations = [
        {"id": 10 * i + k, "image_id": i, "category_id": k, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        for i, d in enumerate(drawn)
        for k, (x1, y1, x2, y2) in enumerate(d.boxes.values())
    ]
    categories = [{"id": k, "name": f"{colour}_thing"} for k, colour in enumerate(drawn[0].boxes)]
    captions = [{"id": 10 * i + k, "image_id": i, "caption": f"{word} {i}"} for i in range(len(drawn)) for k, word in
                enumerate(("picture", "photo", "drawing"))]  # fmt: skip
    instances = {"info": {}, "images": images, "annotations": annotations, "categories": categories, **more}
    return instances, {"annotations": captions, "images": images}


@pytest.mark.parametrize("indent", [None, 1])
def test_coco_instances_and_captions_are_joined(tmp_path, drawn, importing, check_pixels, records_of, indent):
    instances, captions = coco(drawn)
    instances["annotations"].append({"id": 999, "image_id": 3, "category_id": 0, "bbox": [0, 0, 9, 9], "iscrowd": 1})
    write_json(tmp_path / "annotations" / "instances.json", instances, indent=indent)
    write_json(tmp_path / "annotations" / "captions.json", captions, indent=indent)
    assert of(tmp_path / "annotations") == "coco"
    written, found = importing(tmp_path / "annotations", template="a {}")
    assert written["train"] == 20 and refused(found) == {} and check_pixels(tmp_path / "out") == 60
    records = [record for _, record in records_of(tmp_path / "out")]
    assert records[7]["short_caption"] == "picture 7" and records[7]["caption"] == "picture 7 photo 7 drawing 7"
    assert {region["short_expr"] for region in records[7]["bbox_info"]} == {
        "a red thing",
        "a green thing",
        "a blue thing",
    }


def test_coco_takes_a_named_field_as_text(tmp_path, drawn, importing, records_of):
    instances, _ = coco(drawn)
    for annotation in instances["annotations"]:
        annotation["note"] = f"a red note {annotation['id']}"
    importing(write_json(tmp_path / "mine.json", instances), text_field="note")
    assert next(records_of(tmp_path / "out"))[1]["bbox_info"][1]["short_expr"] == "a red note 1"


def test_coco_of_fractions_is_refused_with_the_likely_unit(tmp_path, drawn, importing):
    instances, _ = coco(drawn)
    for annotation in instances["annotations"]:
        image = drawn[annotation["image_id"]]
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x / image.width, y / image.height, w / image.width, h / image.height]
    source = write_json(tmp_path / "mine.json", instances)
    with pytest.raises(ValueError, match=r"must be xywh-pixel, but that fits only 0 of 60; .* --boxes xywh-fraction"):
        importing(source)
    assert importing(source, boxes="xywh-fraction")[0]["train"] == 20


def test_coco_flaws_are_counted(tmp_path, drawn, importing):
    instances, _ = coco(drawn)
    instances["images"][0]["file_name"] = "gone.png"
    instances["images"][1] |= {"width": 1000, "height": 7}
    instances["annotations"][6]["bbox"] = [3, 3, 0, 5]
    instances["annotations"][7]["bbox"] = [3, 3]
    instances["annotations"][8]["category_id"] = 77
    _, found = importing(write_json(tmp_path / "mine.json", instances))
    assert refused(found) == {causes.NO_IMAGE: 1, causes.OTHER_SIZE: 1, boxes.EMPTY: 1, boxes.SHORT: 1,
                              causes.NO_EXPRESSION: 1}  # fmt: skip
    lines = (tmp_path / "out" / "refused.csv").read_text().splitlines()
    assert len(lines) == 6 and lines[1].startswith("0,record,gone.png,mine.json,1,no image,")


def test_coco_of_two_sets_with_the_same_ids_is_refused(tmp_path, drawn, importing):
    instances, captions = coco(drawn)
    captions = json.loads(json.dumps(captions))
    captions["images"][4]["file_name"] = "other.png"
    write_json(tmp_path / "annotations" / "a.json", instances)
    write_json(tmp_path / "annotations" / "b.json", captions)
    with pytest.raises(ValueError, match=r"image 4 must be one file, got 4.png in a.json and other.png in b.json"):
        importing(tmp_path / "annotations")


def test_lvis_names_its_images_by_url(tmp_path, drawn, importing, check_pixels):
    instances, _ = coco(drawn)
    for image in instances["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{image.pop('file_name')}"
    (tmp_path / "photos").rename(tmp_path / "val2017")
    importing(write_json(tmp_path / "lvis.json", instances), images=tmp_path)
    assert check_pixels(tmp_path / "out") == 60


def test_an_imagefolder_s_objects_become_regions(tmp_path, drawn, importing, check_pixels):
    rows = [{"file_name": d.name, "text": f"picture {d.name}", "objects": {
        "bbox": [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in d.boxes.values()],
        "category": list(d.boxes)}} for d in drawn]  # fmt: skip
    source = tmp_path / "photos" / "metadata.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    assert of(source) == "json"
    assert importing(source, images=None)[0]["train"] == 20 and check_pixels(tmp_path / "out") == 60
    assert json.loads((tmp_path / "out" / "import.json").read_text())["boxes"] == "xywh-pixel"


def test_sharegpt4v_s_answer_is_the_caption(tmp_path, drawn, importing, records_of):
    rows = [{"id": i, "image": d.name, "conversations": [{"from": "human", "value": "What?\n<image>"},
             {"from": "gpt", "value": f"A long text {i}."}]} for i, d in enumerate(drawn)]  # fmt: skip
    importing(write_json(tmp_path / "share.json", rows))
    assert next(records_of(tmp_path / "out"))[1]["caption"] == "A long text 0."


@pytest.mark.parametrize("stated", ["grit-20m/data-12m/coyo_image_0/00069/000690004.png",
                                    "data/down-grit-12m/coyo_image_0/00069/00000/000000004.png"])  # fmt: skip
@pytest.mark.parametrize("stored", ["coyo_image_0/00069/000690004.png", "coyo_image_0/00069/00000/000000004.png"])
def test_finehard_s_images_are_found_under_both_namings(tmp_path, drawn, importing, stated, stored):
    (tmp_path / "photos" / stored).parent.mkdir(parents=True)
    (tmp_path / "photos" / "4.png").rename(tmp_path / "photos" / stored)
    source = write_json(tmp_path / "finehard.json", [{"f_path": stated, "caption": "long", "short_caption": "short"}])
    assert importing(source)[0]["train"] == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("layout", ["lines", "list"])
def test_encodings_with_a_mark_are_read(tmp_path, drawn, importing, records_of, encoding, layout):
    rows = [{"image": d.name, "caption": "ein Bär"} for d in drawn]
    text = (
        json.dumps(rows, ensure_ascii=False)
        if layout == "list"
        else "\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    )
    (tmp_path / "mine.jsonl").write_bytes(text.encode(encoding))
    importing(tmp_path / "mine.jsonl")
    assert [record["caption"] for _, record in records_of(tmp_path / "out")] == ["ein Bär"] * 20


def csv_text(drawn, delimiter="\t", names=("filepath", "title")):
    rows = [names, *((d.name, f'"a picture{delimiter} number {i}"') for i, d in enumerate(drawn))]
    return "\n".join(delimiter.join(row) for row in rows)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
def test_csv_of_open_clip(tmp_path, drawn, importing, records_of, delimiter, encoding):
    source = tmp_path / "train.csv"
    source.write_bytes(csv_text(drawn, delimiter).encode(encoding))
    assert of(source) == "csv" and importing(source)[0]["train"] == 20
    assert next(records_of(tmp_path / "out"))[1]["short_caption"] == f"a picture{delimiter} number 0"


def test_csv_with_named_columns_and_flaws(tmp_path, drawn, importing, records_of):
    rows = ["Bild,Satz", "0.png,one", "0.png,two", "1.png,three, four", "gone.png,x", ",y", "2.png,", "3.png,drei"]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    written, found = importing(tmp_path / "mine.csv", image_field="Bild", text_field="Satz")
    assert written["train"] == 2
    assert refused(found) == {causes.WRONG_TYPE: 1, causes.NO_IMAGE: 2, causes.NO_TEXT: 1}
    assert [record["short_caption"] for _, record in records_of(tmp_path / "out")] == ["one", "drei"]
    assert next(records_of(tmp_path / "out"))[1]["captions"] == ["one", "two"]
    with pytest.raises(ValueError, match="must have a known format"):
        importing(tmp_path / "mine.csv", "other")


def test_csv_with_boxes(tmp_path, drawn, importing, check_pixels):
    rows = ["image,x1,y1,x2,y2,label", *(",".join(map(str, (d.name, *box, colour))) for d in drawn for colour, box
                                         in d.boxes.items())]  # fmt: skip
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    assert importing(tmp_path / "mine.csv")[0]["train"] == 20 and check_pixels(tmp_path / "out") == 60


def table_rows(tmp_path, drawn):
    return [
        {
            "image": {"bytes": (tmp_path / "photos" / d.name).read_bytes(), "path": d.name},
            "caption": [f"picture {i}", f"photo {i}"], "width": d.width, "height": d.height,
            "objects": {"bbox": [list(map(float, box)) for box in d.boxes.values()], "category": [0, 1, 2]},
        }
        for i, d in enumerate(drawn)
    ]  # fmt: skip


@pytest.fixture
def table(tmp_path, drawn):
    """An arrow table with images, as Hugging Face's library writes it."""
    pa = pytest.importorskip("pyarrow")
    made = pa.Table.from_pylist(table_rows(tmp_path, drawn))
    labels = {"_type": "ClassLabel", "names": list(drawn[0].boxes)}
    features = {"info": {"features": {"objects": {"category": {"feature": labels}}}}}
    return made.replace_schema_metadata({"huggingface": json.dumps(features)})


@pytest.mark.parametrize("layout", ["parquet", "arrow stream", "arrow file"])
def test_tables_with_images(tmp_path, importing, check_pixels, records_of, table, layout):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "set" / "train"
    folder.mkdir(parents=True)
    if layout == "parquet":
        pq.write_table(table, folder / "train-00000-of-00001.parquet", row_group_size=7)
    else:
        opener = pa.ipc.new_stream if layout == "arrow stream" else pa.ipc.new_file
        with opener(folder / "data-00000-of-00001.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    assert of(tmp_path / "set") == "table"
    assert importing(tmp_path / "set", images=None)[0]["train"] == 20 and check_pixels(tmp_path / "out") == 60
    records = [record for _, record in records_of(tmp_path / "out")]
    assert records[19]["captions"] == ["picture 19", "photo 19"] and records[19]["source"]["key"] == "19.png"


def test_a_parquet_of_img2dataset_with_failures(tmp_path, drawn, importing):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    files = [(tmp_path / "photos" / d.name).read_bytes() for d in drawn]
    rows = [{"caption": "x", "key": f"{i}", "status": "success", "jpg": file} for i, file in enumerate(files)]
    rows[0] |= {"status": "failed_to_download", "error_message": "HTTP Error 404", "jpg": None}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "00000.parquet")
    written, found = importing(tmp_path / "00000.parquet")
    assert written["train"] == 19 and refused(found) == {causes.NO_IMAGE: 1}


@pytest.mark.parametrize("order", ["by sample", "by kind"])
def test_tars_of_img2dataset(tmp_path, drawn, importing, records_of, order):
    folder = tmp_path / "tars"
    folder.mkdir()
    (folder / "00000_stats.json").write_text('{"successes": 20}')
    members = []
    for i, d in enumerate(drawn):
        members.append((f"{i:09d}.png", (tmp_path / "photos" / d.name).read_bytes()))
        members.append((f"{i:09d}.txt", f"text {i}".encode()))
        members.append((f"{i:09d}.json", json.dumps({"caption": f"text {i}", "width": 1, "height": 9}).encode()))
    members.sort(key=lambda member: member[0].rpartition(".")[2] if order == "by kind" else "")
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert of(folder) == "img2dataset" and importing(folder)[0]["train"] == 20
    assert {record["short_caption"] for _, record in records_of(tmp_path / "out")} == {f"text {i}" for i in range(20)}


def test_a_folder_of_img2dataset(tmp_path, drawn, importing):
    for d in drawn:
        (tmp_path / "photos" / d.name).with_suffix(".txt").write_text(f"text {d.name}")
    assert of(tmp_path / "photos") == "img2dataset" and importing(tmp_path / "photos")[0]["train"] == 20


@pytest.mark.parametrize(
    ("caption", "text", "kept"),
    [
        (2020, "2020", {"short_caption": "2020"}),
        (float("nan"), "a mug", {"short_caption": "a mug"}),
        (None, "a mug\na cup\n", {"short_caption": "a mug", "caption": "a mug a cup", "captions": ["a mug", "a cup"]}),
        ("long", "a mug\na cup", {"short_caption": "a mug", "caption": "long", "captions": ["a mug", "a cup"]}),
        ("a mug\na cup", "a mug\na cup", {"short_caption": "a mug\na cup"}),
    ],
    ids=["number", "not a number", "lines", "lines beside a long one", "lines of one text"],
)
def test_the_text_file_of_a_sample_holds_a_caption_a_line(tmp_path, drawn, importing, records_of, caption, text, kept):
    image = tmp_path / "photos" / drawn[0].name
    image.with_suffix(".txt").write_text(text)
    image.with_suffix(".json").write_text(json.dumps({"caption": caption}))
    assert importing(tmp_path / "photos", images=None, format="img2dataset")[0]["train"] == 1
    (record,) = (record for _, record in records_of(tmp_path / "out"))
    assert {name: record.get(name) for name in ("short_caption", "caption", "captions") if name in record} == kept


def test_labels_of_numbers_are_no_captions(tmp_path, drawn):
    for d in drawn:
        (tmp_path / "photos" / d.name).with_suffix(".txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(ValueError, match="must have a known format"):
        of(tmp_path / "photos")


def test_every_format_of_the_table_stands_in_the_documentation():
    from pathlib import Path

    page = (Path(__file__).parents[3] / "docs" / "own-data.md").read_text()
    assert all(f"| `{name}` |" in page for name in FORMATS)
