"""The written set is complete, in the formats of users' data, and the same for any number of workers."""

import io
import json
import tarfile

import pytest
from PIL import Image

from fgclip_fast.data.records import parse
from fgclip_fast.scenes.__main__ import main
from fgclip_fast.scenes.grammar import HELD_OUT
from fgclip_fast.scenes.levels import LEVELS
from fgclip_fast.scenes.write import write_scenes

SIZE = {"train": 16, "val": 24}


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fgclip_fast.scenes.write.SHARD", 10)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_shards):
    path = tmp_path_factory.mktemp("scenes")
    write_scenes(path, **SIZE, workers=1)
    return path


def samples(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def questions(folder, kind, name):
    return [json.loads(line) for line in (folder / "levels" / kind / f"{name}.jsonl").read_text().splitlines()]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_shards_hold_images_and_records(folder):
    shards = sorted(folder.glob("*.tar"))
    names = [f"train-{n:05d}.tar" for n in range(2)] + [f"val-{n:05d}.tar" for n in range(3)]
    assert [shard.name for shard in shards] == names
    members = samples(shards[1])
    assert len(members) == 2 * 6
    for name, content in members.items():
        if name.endswith(".json"):
            assert not parse(content).defects
        else:
            assert Image.open(io.BytesIO(content)).format == "JPEG"


def test_workers_do_not_change_a_byte(folder, tmp_path):
    write_scenes(tmp_path, **SIZE, workers=2)
    assert contents(tmp_path) == contents(folder)


def test_a_complete_folder_is_kept_and_an_incomplete_one_is_written_again(folder, tmp_path):
    write_scenes(tmp_path, train=3, val=12, workers=1)
    shard = tmp_path / "train-00000.tar"
    whole = shard.read_bytes()
    shard.write_bytes(b"")
    write_scenes(tmp_path, train=3, val=12, workers=1)
    assert shard.read_bytes() == b""
    (tmp_path / "_complete").unlink()
    write_scenes(tmp_path, train=3, val=12, workers=1)
    assert shard.read_bytes() == whole


@pytest.mark.parametrize("name", LEVELS)
def test_questions_are_in_the_format_of_fg_ovd(folder, name):
    for kind in ("unseen", "seen"):
        found = questions(folder, kind, name)
        assert found
        for question in found:
            x, y, w, h = question["bbox"]
            assert x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= 96.01 and y + h <= 96.01
            assert (folder / "levels" / "images" / question["img_path"]).exists()
            (positive,), negatives = question["pos_expression"], question["neg_expression"]
            assert len({positive, *negatives}) == 1 + len(negatives) == 1 + len(question["neg_category_ids"])


def test_unseen_questions_are_about_held_out_pairs(folder):
    for kind in ("unseen", "seen"):
        for question in questions(folder, kind, "hard"):
            *_, colour, noun = question["pos_expression"][0].split()
            assert ((noun, colour) in HELD_OUT) == (kind == "unseen")


def test_all_levels_ask_about_the_same_regions(folder):
    places = {name: [(q["img_path"], q["category_id"]) for q in questions(folder, "unseen", name)] for name in LEVELS}
    assert all(found == places["hard"] for found in places.values())


def test_too_few_scenes_to_ask_about_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"more than 10 different things, got \d+ in 1 validation scenes"):
        write_scenes(tmp_path, train=1, val=1)
    with pytest.raises(SystemExit, match=r"^error: scenes: questions need more than 10"):
        main(["--output", str(tmp_path), "--train", "1", "--val", "1"])
