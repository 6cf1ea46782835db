"""``fgclip curate negatives`` writes shards with negatives: the same bytes however it runs, and nothing is lost."""

import io
import json
import subprocess
import sys

import pytest
from PIL import Image

from fgclip_fast.curate import Negatives, records, running, write_negatives
from fgclip_fast.curate.__main__ import main
from fgclip_fast.data.causes import NOT_JSON
from fgclip_fast.data.file_order import examples
from fgclip_fast.data.shards import Shard, ShardWriter, expand

OWN = {"0": "a blue mug"}


def region(text, **fields):
    return {"bbox": [0.1, 0.1, 0.9, 0.9], "short_expr": text, "long_expr": text, **fields}


def write(path, *regions, raw=None):
    with ShardWriter(path) as shard:
        for number, each in enumerate(regions):
            record = {"short_caption": "a thing", "bbox_info": [each]}
            shard.write(f"{number:04d}", jpg=b"image", json=json.dumps(record).encode())
        if raw is not None:
            shard.write("bad", jpg=b"image", json=raw)


@pytest.fixture
def mine(tmp_path):
    folder = tmp_path / "mine"
    write(folder / "train-00000.tar", region("a red mug"), region("a large blue dog"), raw=b"{")
    write(
        folder / "train-00001.tar",
        region("a green metal car", short_expr_negs=OWN, flag_short_neg=1),
        region("a snail"),
    )
    write(folder / "val-00000.tar", region("a wooden chair"), {"bbox": [0, 0, 1, 1], "long_expr": "a grey cat"})
    return folder


def read(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


def regions(path):
    shard = Shard(path)
    return [
        fields["bbox_info"][0]
        for fields in (json.loads(shard.read(i).parts["json"]) for i in range(len(shard)) if shard.read(i).key != "bad")
    ]


def test_regions_get_ten_negatives_and_keep_their_own(mine, tmp_path):
    fill = Negatives(noun_swaps="fill")  # no negatives for a snail, which has no attribute
    counts = write_negatives(expand(str(mine)), tmp_path / "out", fill, workers=1)
    mug, dog = regions(tmp_path / "out" / "train-00000.tar")
    assert len(set(mug["short_expr_negs"].values())) == 10 and mug["flag_short_neg"] == 1
    assert len(dog["short_expr_negs"]) == 10 and "a large blue dog" not in dog["short_expr_negs"].values()
    car, snail = regions(tmp_path / "out" / "train-00001.tar")
    assert car["short_expr_negs"] == OWN and "short_expr_negs" not in snail
    assert counts["regions"] == 6 and counts["regions with new negatives"] == 3 and counts["negatives"] == 30
    assert counts["regions that kept their own"] == counts[f"bad record: {NOT_JSON}"] == 1
    lines = (tmp_path / "out" / "without_negatives.csv").read_text().splitlines()
    assert lines == [
        "shard,key,region,text,cause",
        f"train-00001.tar,0001,0,a snail,{records.NOTHING_TO_CHANGE}",
        f"val-00000.tar,0001,0,,{records.NO_EXPRESSION}",
    ]
    assert json.loads((tmp_path / "out" / "negatives.json").read_text())["counts"]["negatives"] == 30


def test_names_of_categories_get_other_names_that_the_set_uses(tmp_path, capsys):
    """As COCO's regions are imported, whose texts are the names of their categories."""
    names = ["dog", "pizza", "umbrella", "bus", "clock", "banana", "scissors", "two forks", "laptop", "horse", "chair"]
    write(tmp_path / "mine" / "train-00000.tar", *(region(name) for name in names * 20))
    main(["negatives", str(tmp_path / "mine"), "--output", str(tmp_path / "out"), "--workers", "1"])
    assert "220 of 220 regions have new negatives" in capsys.readouterr().out
    found = regions(tmp_path / "out" / "train-00000.tar")
    negatives = [text for each in found for text in each["short_expr_negs"].values()]
    assert all(len(set(each["short_expr_negs"].values()) - {each["short_expr"]}) == 10 for each in found)
    assert sum(text in names for text in negatives) > 0.2 * len(negatives)  # 0.04 of all nouns
    few = [str(tmp_path / "mine"), "--output", str(tmp_path / "few"), "--noun-swaps", "fill", "--workers", "1"]
    main(["negatives", *few])
    printed = capsys.readouterr().out
    assert "0 of 220 regions have new negatives" in printed and "--noun-swaps bare gives texts" in printed


def test_everything_else_of_a_sample_stays(mine, tmp_path):
    write_negatives(expand(str(mine)), tmp_path / "out", Negatives(), workers=1)
    before, after = Shard(mine / "train-00000.tar"), Shard(tmp_path / "out" / "train-00000.tar")
    assert [after.read(i).key for i in range(3)] == [before.read(i).key for i in range(3)]
    assert after.read(2) == before.read(2) and after.read(0).parts["jpg"] == b"image"


def test_a_record_may_lie_in_a_part_of_a_longer_name(tmp_path):
    record = json.dumps({"short_caption": "a thing", "bbox_info": [region("a red metal mug")]}).encode()
    with ShardWriter(tmp_path / "a.tar") as shard:
        shard.write("0", **{"image.jpg": b"image", "meta.json": record})
    counts = write_negatives([tmp_path / "a.tar"], tmp_path / "out", Negatives(), workers=1)
    assert counts["regions with new negatives"] == 1
    parts = Shard(tmp_path / "out" / "a.tar").read(0).parts
    assert list(parts) == ["image.jpg", "meta.json"]
    assert len(json.loads(parts["meta.json"])["bbox_info"][0]["short_expr_negs"]) == 10
    assert "color red" in json.loads((tmp_path / "out" / "_negatives" / "known.json").read_text())["counts"]


def test_the_same_bytes_come_for_any_number_of_workers_and_order_of_shards(mine, tmp_path):
    shards = expand(str(mine))
    write_negatives(shards, tmp_path / "one", Negatives(), workers=1)
    write_negatives(shards[::-1], tmp_path / "two", Negatives(), workers=2)
    assert read(tmp_path / "one") == read(tmp_path / "two")


def test_an_interrupted_call_goes_on_and_writes_no_shard_twice(mine, tmp_path, monkeypatch):
    shards = expand(str(mine))
    write_negatives(shards, tmp_path / "whole", Negatives(), workers=1)
    real = running.write_unit
    written = []

    def interrupted(stage, unit, *others):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(unit.name)
        return real(stage, unit, *others)

    monkeypatch.setattr(running, "write_unit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_negatives(shards, tmp_path / "out", Negatives(), workers=1)
    monkeypatch.setattr(
        running, "write_unit", lambda stage, unit, *others: (written.append(unit.name), real(stage, unit, *others))[1]
    )
    counts = write_negatives(shards, tmp_path / "out", Negatives(), workers=1)
    assert sorted(written) == [shard.name for shard in shards]
    assert read(tmp_path / "out") == read(tmp_path / "whole") and counts["negatives"] == 40


def test_in_place_each_shard_is_replaced_and_a_second_call_changes_nothing(mine, tmp_path):
    write_negatives(expand(str(mine)), tmp_path / "out", Negatives(), workers=1)
    write_negatives(expand(str(mine)), mine, Negatives(), workers=1)
    assert read(mine) == read(tmp_path / "out")
    assert write_negatives(expand(str(mine)), mine, Negatives(), workers=1)["negatives"] == 40
    assert read(mine) == read(tmp_path / "out")


def test_replace_overrides_the_negatives_that_a_region_brings(mine, tmp_path):
    counts = write_negatives(expand(str(mine)), tmp_path / "out", Negatives(replace=True, noun_swaps="bare"), workers=1)
    car, snail = regions(tmp_path / "out" / "train-00001.tar")
    assert len(car["short_expr_negs"]) == len(snail["short_expr_negs"]) == 10
    assert counts["regions that kept their own"] == 0


def test_the_command_prints_shares_and_its_shards_serve_training(mine, tmp_path, capsys):
    with ShardWriter(mine / "val-00000.tar") as shard:
        record = {"short_caption": "a mug", "bbox_info": [region("a red mug")]}
        image = io.BytesIO()
        Image.new("RGB", (40, 30)).save(image, "JPEG")
        shard.write("0", jpg=image.getvalue(), json=json.dumps(record).encode())
    main(["negatives", str(mine), "--output", str(tmp_path / "out"), "--workers", "1"])
    assert "negatives, and the share" in capsys.readouterr().out
    (example,) = examples(str(tmp_path / "out" / "val-00000.tar"), image_size=16)
    assert len(example.hard_texts[0]) >= 10


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{mine}", "--output", "{mine}/train-00000.tar"], "must be a folder"),
        (["{mine}", "--output", "{mine}/../other"], "must hold no shards"),
        (["{mine}::{mine}/../other", "--output", "{mine}/../out"], "train-00000.tar twice"),
        (["{mine}/nothing", "--output", "{mine}/../out"], "no tar file"),
        (["{mine}", "--output", "{mine}/../out", "--count", "0"], "count must be > 0, got 0"),
        (["{mine}", "--output", "{mine}/../out", "--noun-share", "1.5"], r"noun_share must be in \[0, 1\], got 1.5"),
        (["{mine}", "--output", "{mine}/../out", "--workers", "0"], "--workers must be at least 1"),
    ],
)
def test_a_wrong_argument_is_one_line(mine, arguments, message):
    write(mine.parent / "other" / "train-00000.tar", region("a mug"))
    with pytest.raises(SystemExit, match=message):
        main(["negatives", *(argument.format(mine=mine) for argument in arguments)])


def test_other_settings_in_one_folder_are_refused(mine, tmp_path):
    write_negatives(expand(str(mine)), tmp_path / "out", Negatives(), workers=1)
    with pytest.raises(ValueError, match="other shards or settings"):
        write_negatives(expand(str(mine)), tmp_path / "out", Negatives(seed=1), workers=1)


def test_the_command_line_names_its_stage():
    done = subprocess.run([sys.executable, "-m", "fgclip_fast", "curate", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "negatives" in done.stdout
