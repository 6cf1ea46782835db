"""A user's own list becomes shards: what is kept, what is refused, and what stops the command."""

import json
from collections import Counter

import pytest

from fgclip_fast.data import causes
from fgclip_fast.data.__main__ import main
from fgclip_fast.data.file_order import examples
from fgclip_fast.data.importers import import_records
from fgclip_fast.inputs import boxes


def imported(source, photos, output, **options):
    """Imports without worker processes."""
    return import_records(source, output, images=photos, workers=1, **options)


def boxed(bbox, **fields):
    """A record of an image of 200 x 100 pixels."""
    return {"image": "a.jpg", "short_caption": "a mug", "bbox_info": [{"bbox": bbox, "short_expr": "a mug"}], **fields}


@pytest.fixture
def photos(tmp_path, encoded):
    folder = tmp_path / "photos" / "more"
    folder.mkdir(parents=True)
    for number in range(40):
        (folder / f"{number}.jpg").write_bytes(encoded(20, 10, seed=number))
    (folder.parent / "a.jpg").write_bytes(encoded(200, 100))
    (folder.parent / "b.png").write_bytes(encoded(200, 100, format="PNG"))
    (folder.parent / "half.jpg").write_bytes(encoded(200, 100)[:900])
    whole = encoded(200, 100)
    (folder.parent / "tables.jpg").write_bytes(whole[:200] + bytes(60) + whole[260:])
    return folder.parent


def lines(path, records):
    path.write_bytes(b"\n".join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in records))
    return path


@pytest.mark.parametrize(
    "boxes, bbox",
    [("xyxy-pixel", [20, 10, 100, 90]), ("xywh-pixel", [20, 10, 80, 80]), ("xyxy-fraction", [0.1, 0.1, 0.5, 0.9])],
)
def test_boxes_become_fractions(tmp_path, photos, boxes, bbox):
    source = lines(tmp_path / "mine.jsonl", [boxed(bbox), boxed(bbox, image="b.png")])
    written, found = imported(source, photos, tmp_path / "out", boxes=boxes)
    assert written == {"train": 2, "val": 0} and found[causes.EXPRESSION_FILLED] == 2
    for example in examples(str(tmp_path / "out"), image_size=16):
        assert example.boxes[0].tolist() == pytest.approx([0.1, 0.1, 0.5, 0.9])


def test_a_bad_box_is_listed_in_the_numbers_of_the_source(tmp_path, photos):
    source = lines(tmp_path / "mine.jsonl", [boxed([20, 10, 100, 90]), boxed([500, 10, 600, 90])])
    imported(source, photos, tmp_path / "out", boxes="xyxy-pixel")
    listed = (tmp_path / "out" / "refused.csv").read_text().splitlines()
    assert len(listed) == 2 and listed[1].endswith('in the source [500, 10, 600, 90]"')


def test_a_region_without_a_box_is_listed(tmp_path, photos):
    source = lines(tmp_path / "mine.jsonl", [boxed([20, 10, 100, 90], bbox_info=[{"short_expr": "a mug"}])])
    imported(source, photos, tmp_path / "out", boxes="xyxy-pixel")
    listed = (tmp_path / "out" / "refused.csv").read_text().splitlines()
    assert len(listed) == 2 and listed[1].endswith('in the source None"')


@pytest.mark.parametrize(
    "bbox, cause",
    [([10**400, 0, 2, 3], boxes.NOT_FINITE), ([10**400, 0.5, 2.5, 3], boxes.NOT_FINITE),
     ([0, 0, 2, -(10**400)], boxes.NOT_FINITE), ([True, False, 3, 3], boxes.WRONG_TYPE)],
    ids=["huge", "huge and a fraction", "huge and negative", "booleans"],
)  # fmt: skip
@pytest.mark.parametrize("boxes", ["xyxy-pixel", "xywh-pixel", "xyxy-fraction"])
def test_boxes_of_wrong_numbers_drop_their_region(tmp_path, photos, boxes, bbox, cause):
    source = lines(tmp_path / "mine.jsonl", [boxed(bbox)])
    written, found = imported(source, photos, tmp_path / "out", boxes=boxes)
    assert written["train"] == 1 and found == {cause: 1, causes.LONG_FROM_SHORT: 1}
    counts = Counter()
    assert [len(e.boxes) for e in examples(str(tmp_path / "out"), image_size=8, counts=counts)] == [0]
    assert counts == found


def test_refused_records_are_named_and_counted(tmp_path, photos, caplog):
    bad = [
        b"{",
        b"\xff",
        boxed([0, 0, 1, 1], image="gone.jpg"),
        boxed([0, 0, 1, 1], image="half.jpg"),
        boxed([0, 0, 1, 1], image="tables.jpg"),
        {"caption": "x"},
    ]
    bad += [boxed([0, 0, 1, 1], short_caption=3), {"image": "a.jpg"}, [], b""]
    source = lines(tmp_path / "mine.jsonl", [boxed([9, 9, 9, 20]), *bad, boxed("none")])
    written, found = imported(source, photos, tmp_path / "out", boxes="xyxy-pixel")
    assert written["train"] == 2
    refused = {cause: n for cause, n in found.items() if cause in causes.BAD}
    assert refused == {causes.NOT_JSON: 1, causes.NOT_UTF8: 1, causes.NO_IMAGE: 2, causes.TRUNCATED_IMAGE: 1,
                       causes.CORRUPT_IMAGE: 1, causes.WRONG_TYPE: 2, causes.NO_TEXT: 1}  # fmt: skip
    assert found[boxes.EMPTY] == found[boxes.WRONG_TYPE] == 1
    assert "mine.jsonl, line 2: broken JSON" in caplog.text and "mine.jsonl, line 4: no image" in caplog.text


def test_an_image_is_for_training_or_validation_and_never_changes_sides(tmp_path, photos):
    records = [{"image": f"more/{n % 40}.jpg", "short_caption": f"photo {n % 40}"} for n in range(80)]
    source = lines(tmp_path / "mine.jsonl", records)
    imported(source, photos, tmp_path / "a", boxes="xyxy-pixel", val=0.3, shard_size=10)
    split = lambda name: [e.short for e in examples(f"{tmp_path}/a/{name}-*.tar", image_size=8)]  # noqa: E731
    train, val = split("train"), split("val")
    assert len(train) + len(val) == 80 and not set(train) & set(val) and 8 <= len(val) <= 40
    assert len(list((tmp_path / "a").glob("train-*.tar"))) == -(-len(train) // 10)
    source = lines(tmp_path / "fewer.jsonl", records[20:60])
    imported(source, photos, tmp_path / "b", boxes="xyxy-pixel", val=0.3)
    assert {e.short for e in examples(f"{tmp_path}/b/val-*.tar", image_size=8)} == set(val)


def test_finehard_files_are_lists_in_spite_of_their_name(tmp_path, photos, record):
    (tmp_path / "json").mkdir()
    for number in range(2):
        records = [record(number, f_path=f"grit-20m/data-12m/more/{number}.jpg"), {"f_path": "gone.jpg"}]
        (tmp_path / "json" / f"{number}.jsonl").write_text(json.dumps(records, indent=1))
    (tmp_path / "list.txt").write_text("json/0.jsonl\njson/1.jsonl\n")
    for source in ("json", "list.txt"):
        written, found = imported(tmp_path / source, photos, tmp_path / f"to {source}", boxes="xyxy-fraction")
        assert written["train"] == 2 and found == {causes.NO_IMAGE: 2}
    (tmp_path / "cut.json").write_text('[{"f_path": ')
    with pytest.raises(ValueError, match=r"cut.json: broken JSON"):
        imported(tmp_path / "cut.json", photos, tmp_path / "cut", boxes="xyxy-fraction")


def test_shards_are_not_written_over(tmp_path, photos):
    source = lines(tmp_path / "mine.jsonl", [boxed([0, 0, 9, 9])])
    imported(source, photos, tmp_path / "out", boxes="xyxy-pixel")
    with pytest.raises(ValueError, match=r"--output must not hold a complete import, got .*; choose another folder"):
        imported(source, photos, tmp_path / "out", boxes="xyxy-pixel")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "train-00000.tar").touch()
    with pytest.raises(ValueError, match=r"--output must hold no shards, got .*; choose another folder"):
        imported(source, photos, tmp_path / "theirs", boxes="xyxy-pixel")
    with pytest.raises(FileNotFoundError, match="nothing"):
        imported(tmp_path / "nothing.jsonl", photos, tmp_path / "other", boxes="xyxy-pixel")


def test_the_commands_print_what_they_did(tmp_path, photos, capsys):
    source = lines(tmp_path / "mine.jsonl", [boxed([9, 9, 50, 50]), boxed([9, 9, 9, 50]), b"{"])
    command(source, photos, tmp_path / "out", "--boxes", "xyxy-pixel")
    out = capsys.readouterr().out
    assert "2 records to train on, 0 to validate on" in out and "1  broken JSON" in out and "1  empty box" in out
    main(["index", str(tmp_path / "out")])
    assert "1 shards, 2 samples" in capsys.readouterr().out
    assert (tmp_path / "out" / "train-00000.tar.index").is_file()
    main(["check", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert "2 good records, 0 bad" in out and "1 regions, 0 of them with negatives" in out and "1  empty box" in out


def command(source, photos, output, *more):
    """Runs the command."""
    main(["import", *map(str, (source, "--images", photos, "--output", output, "--workers", 1)), *more])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--workers", "0"], "--workers must be at least 1 process, got 0"),
        (["--template", "a thing"], "--template must hold {} for the category's name, got 'a thing'"),
        (["--shard-size", "0"], "--shard-size must be at least 1 record, got 0"),
        (["--shard-size", "-5"], "--shard-size must be at least 1 record, got -5"),
        (["--val", "7"], "--val must be a share of the images, 0 to 1, got 7.0"),
        (["--val", "-0.1"], "--val must be a share of the images, 0 to 1, got -0.1"),
        (["--val", "nan"], "--val must be a share of the images, 0 to 1, got nan"),
        (["--images", "nowhere"], "--images must be a folder, got nowhere, which is not a folder"),
    ],
)
def test_a_wrong_argument_gives_one_line(tmp_path, photos, arguments, message):
    source = lines(tmp_path / "mine.jsonl", [boxed([9, 9, 50, 50])])
    with pytest.raises(SystemExit) as end:
        command(source, photos, tmp_path / "out", *arguments)
    assert end.value.code == f"error: data import: {message}" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", ["", "/out"])
def test_an_output_that_is_a_file_gives_one_line(tmp_path, photos, below):
    source = lines(tmp_path / "mine.jsonl", [boxed([9, 9, 50, 50])])
    with pytest.raises(SystemExit, match=r"^error: data import: --output must be a new folder, got .* is a file$"):
        command(source, photos, f"{source}{below}")


def test_a_list_without_a_usable_record_fails_with_its_causes(tmp_path, photos):
    source = lines(tmp_path / "mine.jsonl", [boxed([9, 9, 50, 50], image="gone.jpg")] * 2 + [b"3", b"{"])
    causes = "2 x no image, 1 x wrong type, 1 x broken JSON; each line must be a whole record"
    with pytest.raises(SystemExit, match=rf"^error: data import: no record of .* is usable with .*: {causes}"):
        command(source, photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (json.dumps({"image": "a.jpg", "caption": "a"}, indent=1), "a JSON object: records must be one in each line"),
        ("a.jpg a mug", "Known are: .*coco: .*json: .*image's path in image, f_path"),
        (json.dumps([{"picture": "a.jpg"}]), "Known are"),
    ],
    ids=["pretty", "text", "another field"],
)
def test_an_unknown_format_is_told_with_those_that_are_known(tmp_path, photos, content, message):
    (tmp_path / "mine.jsonl").write_text(content)
    with pytest.raises(SystemExit, match=rf"^error: data import: source must have a known format, got .*{message}"):
        command(tmp_path / "mine.jsonl", photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "\n \n", "[]"], ids=repr)
def test_an_empty_list_fails(tmp_path, photos, content):
    (tmp_path / "mine.jsonl").write_text(content)
    with pytest.raises(SystemExit, match=r"^error: data import: .*mine.jsonl holds no record$"):
        command(tmp_path / "mine.jsonl", photos, tmp_path / "out")
