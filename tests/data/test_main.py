"""The commands: a user's own list becomes shards; shards are indexed and checked."""

import json
from collections import Counter

import pytest

from fgclip_fast.data import causes
from fgclip_fast.data.__main__ import main
from fgclip_fast.data.file_order import examples
from fgclip_fast.data.importers.jsonl import write_shards
from fgclip_fast.inputs import boxes


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
    written, found = write_shards(source, photos, tmp_path / "out", boxes=boxes)
    assert written == {"train": 2, "val": 0} and found[causes.EXPRESSION_FILLED] == 2
    for example in examples(str(tmp_path / "out"), image_size=16):
        assert example.boxes[0].tolist() == pytest.approx([0.1, 0.1, 0.5, 0.9])


@pytest.mark.parametrize(
    "bbox, cause",
    [([10**400, 0, 2, 3], boxes.NOT_FINITE), ([10**400, 0.5, 2.5, 3], boxes.NOT_FINITE),
     ([0, 0, 2, -(10**400)], boxes.NOT_FINITE), ([True, False, 3, 3], boxes.WRONG_TYPE)],
    ids=["huge", "huge and a fraction", "huge and negative", "booleans"],
)  # fmt: skip
@pytest.mark.parametrize("boxes", ["xyxy-pixel", "xywh-pixel", "xyxy-fraction"])
def test_boxes_of_wrong_numbers_drop_their_region(tmp_path, photos, boxes, bbox, cause):
    source = lines(tmp_path / "mine.jsonl", [boxed(bbox)])
    written, found = write_shards(source, photos, tmp_path / "out", boxes=boxes)
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
    written, found = write_shards(source, photos, tmp_path / "out", boxes="xyxy-pixel")
    assert written["train"] == 2
    refused = {cause: n for cause, n in found.items() if cause in causes.BAD}
    assert refused == {causes.NOT_JSON: 1, causes.NOT_UTF8: 1, causes.NO_IMAGE: 2, causes.TRUNCATED_IMAGE: 1,
                       causes.CORRUPT_IMAGE: 1, causes.WRONG_TYPE: 2, causes.NO_TEXT: 1}  # fmt: skip
    assert found[boxes.EMPTY] == found[boxes.WRONG_TYPE] == 1
    assert "mine.jsonl, line 2: broken JSON" in caplog.text and "mine.jsonl, line 4: no image" in caplog.text


def test_an_image_is_for_training_or_validation_and_never_changes_sides(tmp_path, photos):
    records = [{"image": f"more/{n % 40}.jpg", "short_caption": f"photo {n % 40}"} for n in range(80)]
    source = lines(tmp_path / "mine.jsonl", records)
    write_shards(source, photos, tmp_path / "a", boxes="xyxy-pixel", val=0.3, shard_size=10)
    split = lambda name: [e.short for e in examples(f"{tmp_path}/a/{name}-*.tar", image_size=8)]  # noqa: E731
    train, val = split("train"), split("val")
    assert len(train) + len(val) == 80 and not set(train) & set(val) and 8 <= len(val) <= 40
    assert len(list((tmp_path / "a").glob("train-*.tar"))) == -(-len(train) // 10)
    source = lines(tmp_path / "fewer.jsonl", records[20:60])
    write_shards(source, photos, tmp_path / "b", boxes="xyxy-pixel", val=0.3)
    assert {e.short for e in examples(f"{tmp_path}/b/val-*.tar", image_size=8)} == set(val)


def test_finehard_files_are_lists_in_spite_of_their_name(tmp_path, photos, record):
    (tmp_path / "json").mkdir()
    for number in range(2):
        records = [record(number, f_path=f"grit-20m/data-12m/more/{number}.jpg"), {"f_path": "gone.jpg"}]
        (tmp_path / "json" / f"{number}.jsonl").write_text(json.dumps(records, indent=1))
    (tmp_path / "list.txt").write_text("json/0.jsonl\njson/1.jsonl\n")
    for source in ("json", "list.txt"):
        written, found = write_shards(tmp_path / source, photos, tmp_path / f"to {source}", boxes="xyxy-fraction")
        assert written["train"] == 2 and found == {causes.NO_IMAGE: 2}
    (tmp_path / "cut.json").write_text('[{"f_path": ')
    with pytest.raises(ValueError, match=r"cut.json: broken JSON"):
        write_shards(tmp_path / "cut.json", photos, tmp_path / "cut", boxes="xyxy-fraction")


def test_shards_are_not_written_over(tmp_path, photos):
    source = lines(tmp_path / "mine.jsonl", [boxed([0, 0, 9, 9])])
    write_shards(source, photos, tmp_path / "out", boxes="xyxy-pixel")
    with pytest.raises(ValueError, match=r"--output must hold no shards, got .*; choose another folder"):
        write_shards(source, photos, tmp_path / "out", boxes="xyxy-pixel")
    with pytest.raises(FileNotFoundError, match="nothing"):
        write_shards(tmp_path / "nothing.jsonl", photos, tmp_path / "other", boxes="xyxy-pixel")


def test_the_commands_print_what_they_did(tmp_path, photos, capsys):
    source = lines(tmp_path / "mine.jsonl", [boxed([9, 9, 50, 50]), boxed([9, 9, 9, 50]), b"{"])
    main(["jsonl", str(source), "--images", str(photos), "--boxes", "xyxy-pixel", "--output", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert "2 records to train on, 0 to validate on" in out and "1  broken JSON" in out and "1  empty box" in out
    main(["index", str(tmp_path / "out")])
    assert "1 shards, 2 samples" in capsys.readouterr().out
    assert (tmp_path / "out" / "train-00000.tar.index").is_file()
    main(["check", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert "2 good records, 0 bad" in out and "1 regions, 0 of them with negatives" in out and "1  empty box" in out


@pytest.mark.parametrize("command", ["index", "check"])
def test_missing_shards_give_one_line(command, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: data: shards: .*nowhere\.tar, where no tar file exists$"):
        main([command, str(tmp_path / "nowhere.tar")])


def jsonl(source, photos, output, *more):
    """Runs the command."""
    main(["jsonl", *map(str, (source, "--images", photos, "--boxes", "xyxy-pixel", "--output", output)), *more])


@pytest.mark.parametrize(
    "arguments, message",
    [
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
        jsonl(source, photos, tmp_path / "out", *arguments)
    assert end.value.code == f"error: data jsonl: {message}" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", ["", "/out"])
def test_an_output_that_is_a_file_gives_one_line(tmp_path, photos, below):
    source = lines(tmp_path / "mine.jsonl", [boxed([9, 9, 50, 50])])
    with pytest.raises(SystemExit, match=r"^error: data jsonl: --output must be a new folder, got .* is a file$"):
        jsonl(source, photos, f"{source}{below}")


@pytest.mark.parametrize(
    "content, message",
    [
        (json.dumps(boxed([9, 9, 50, 50], image="gone.jpg")), r"2 x no image, 1 x wrong type$"),
        (
            json.dumps({"image": "a.jpg", "caption": "a"}, indent=1),
            r"4 x broken JSON, 1 x wrong type; each line must be",
        ),
        ("", r"1 x wrong type$"),
    ],
    ids=["gone", "pretty", "list"],
)
def test_a_list_without_a_usable_record_fails_with_its_causes(tmp_path, photos, content, message):
    (tmp_path / "mine.jsonl").write_text("\n".join([content, *([content] if "gone" in content else []), "3"]))
    with pytest.raises(
        SystemExit, match=rf"^error: data jsonl: no record of .* is usable with the images .*: {message}"
    ):
        jsonl(tmp_path / "mine.jsonl", photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "\n \n", "[]"], ids=repr)
def test_an_empty_list_fails(tmp_path, photos, content):
    (tmp_path / "mine.jsonl").write_text(content)
    with pytest.raises(SystemExit, match=r"^error: data jsonl: .*mine.jsonl holds no record$"):
        jsonl(tmp_path / "mine.jsonl", photos, tmp_path / "out")


def test_check_counts_a_damaged_shard_each_time(tmp_path, capsys, encoded, record, write_shard):
    path = write_shard(tmp_path / "a.tar", [(encoded(), record(number)) for number in range(8)])
    path.write_bytes(path.read_bytes()[:-15_000])
    for _ in range(2):  # the second time from the index
        main(["check", str(path)])
        assert "1  damaged shard" in capsys.readouterr().out


@pytest.mark.parametrize("samples, message", [(0, "no record"), (2, "no good record")])
def test_check_fails_if_nothing_is_good(tmp_path, caplog, encoded, write_shard, samples, message):
    path = write_shard(tmp_path / "a.tar", [(encoded(), {})] * samples)
    with pytest.raises(SystemExit, match=rf"^error: data check: .*a\.tar holds {message}$"):
        main(["check", str(path)])
    assert ("a.tar: holds no sample" in caplog.text) == (samples == 0)


def test_check_of_a_wrong_limit_gives_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: data check: --limit must be at least 1 record, got -1$"):
        main(["check", str(tmp_path), "--limit", "-1"])
