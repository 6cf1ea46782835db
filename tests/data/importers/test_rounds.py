"""An import goes on after a stop with the same bytes, tries refused records again, and keeps copies on one side."""

import contextlib
import csv
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from fgclip_fast.data import causes
from fgclip_fast.data.importers import rounds

EXIF = 0x0112


@pytest.fixture
def records(tmp_path, drawn):
    """JSON lines of all pictures, two of which do not exist."""
    rows = [{"image": d.name, "caption": f"picture {i}", "bbox_info": [
        {"bbox": list(box), "short_expr": colour} for colour, box in d.boxes.items()]}
        for i, d in enumerate(drawn)]  # fmt: skip
    rows += [{"image": f"later{i}.png", "caption": f"later {i}"} for i in range(2)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "mine.jsonl"


def digests(folder):
    """Digest of each file of an output folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("[!.]*")}


class Stop(Exception):
    pass


@pytest.mark.parametrize("step", ["look_at", "write_shard"])
def test_a_stopped_import_goes_on_with_the_same_bytes(tmp_path, records, importing, monkeypatch, step):
    monkeypatch.setattr(rounds, "CHUNK", 4)
    importing(records, "whole", val=0.3, shard_size=3)
    real, calls = getattr(rounds, step), []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) % 3 == 0:
            raise Stop
        return real(*arguments)

    monkeypatch.setattr(rounds, step, stopping)
    stops = 0
    while True:
        try:
            importing(records, "parts", val=0.3, shard_size=3)
            break
        except Stop:
            stops += 1
            assert not list((tmp_path / "parts").glob("*.tar")), "no shard is seen before all are written"
    assert stops >= 2 and digests(tmp_path / "parts") == digests(tmp_path / "whole")
    calls_of_a_whole = len({str(call[1]) if step == "look_at" else str(call[0]) for call in calls})
    assert len(calls) == calls_of_a_whole + stops, "nothing is done twice but what was stopped"


@pytest.mark.slow
def test_killed_at_random_moments_by_any_number_of_workers(tmp_path, records, importing):
    rows = records.read_text().splitlines()
    records.write_text("\n".join(rows * 100))  # so that the work takes longer than its start
    words = [sys.executable, "-m", "fgclip_fast.data", "import", records, "--images", tmp_path / "photos", "--val",
             0.3, "--shard-size", 100, "--output"]  # fmt: skip
    whole = begun([*words, tmp_path / "whole", "--workers", 2])
    since = time.monotonic()
    assert whole.wait() == 0
    span, moments, kills, ends = time.monotonic() - since, random.Random(0), 0, 0
    parts = tmp_path / "parts"
    while kills < 20 or not (parts / "import.json").exists():
        if (parts / "import.json").exists():
            assert digests(parts) == digests(tmp_path / "whole")
            shutil.rmtree(parts)
            ends += 1
        process = begun([*words, parts, "--workers", 1 + kills % 3])
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert process.wait(moments.uniform(0, span) if kills < 20 else None) == 0
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL if kills % 2 else signal.SIGINT)
        process.wait()
    assert digests(parts) == digests(tmp_path / "whole"), f"after {ends} imports were as they should be"


def begun(words):
    """Start an import, and return its process when it has recognised the source."""
    process = subprocess.Popen([*map(str, words)], stderr=subprocess.PIPE, start_new_session=True, text=True)
    assert process.stderr is not None and "INFO json" in process.stderr.readline()
    return process


def test_other_arguments_are_not_mixed_into_an_import(tmp_path, records, importing, monkeypatch):
    monkeypatch.setattr(rounds, "write_shard", lambda *_: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop):
        importing(records, val=0.3)
    with pytest.raises(ValueError, match=r"out holds an import that began with another val; repeat that command"):
        importing(records, val=0.2)
    records.write_text(records.read_text() + "\n")
    with pytest.raises(ValueError, match="began with another source"):
        importing(records, val=0.3)


def test_refused_records_are_tried_again_and_added(tmp_path, records, importing, records_of, check_pixels):
    with pytest.raises(ValueError, match="--retry-failed needs a complete import"):
        importing(records, retry_failed=True)
    written, found = importing(records, shard_size=15)
    assert written["train"] == 20 and found[causes.NO_IMAGE] == 2
    before = digests(tmp_path / "out")
    Image.effect_noise((80, 60), 50).save(tmp_path / "photos" / "later1.png")
    written, found = importing(records, shard_size=15, retry_failed=True)
    assert written["train"] == 1 and found[causes.NO_IMAGE] == 1
    after = digests(tmp_path / "out")
    assert after.keys() - before.keys() == {"train-00002.tar"}
    assert all(after[name] == before[name] for name in before if name.endswith(".tar"))
    assert [record["source"]["key"] for _, record in records_of(tmp_path / "out")][-1] == "later1.png"
    rows = list(csv.DictReader((tmp_path / "out" / "refused.csv").open()))
    assert [(row["record"], row["part"], row["line"], row["cause"]) for row in rows] == [
        ("20", "record", "21", "no image")
    ]
    manifest = json.loads((tmp_path / "out" / "import.json").read_text())
    assert manifest["rounds"] == 2 and manifest["written"] == {"train": 21, "val": 0}
    assert importing(records, shard_size=15, retry_failed=True)[0]["train"] == 0


def test_copies_of_an_image_never_cross_the_split(tmp_path, drawn, importing, records_of):
    rows = []
    for d in drawn:
        image = Image.open(tmp_path / "photos" / d.name)
        image.resize((image.width * 2, image.height * 2)).save(tmp_path / "photos" / f"big-{d.name}")
        rows += [{"image": name, "caption": d.name} for name in (d.name, f"big-{d.name}", d.name)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    importing(tmp_path / "mine.jsonl", val=0.4)
    train, val = ({r["caption"] for _, r in records_of(tmp_path / "out", split)} for split in ("train", "val"))
    assert train and val and not train & val and len(train | val) == 20
    manifest = json.loads((tmp_path / "out" / "import.json").read_text())
    assert manifest["equal images"] == 20 and manifest["near-duplicate images"] == 20


def turn(tmp_path, drawn, orientation):
    """Gives each picture an EXIF rotation; returns the records without boxes' sizes."""
    for d in drawn:
        path = tmp_path / "photos" / d.name
        exif = Image.Exif()
        exif[EXIF] = orientation
        Image.open(path).save(path, exif=exif)
    return [{"image": d.name, "caption": "x", "bbox_info": [
        {"bbox": list(box), "short_expr": colour} for colour, box in d.boxes.items()]} for d in drawn]  # fmt: skip


def test_boxes_of_turned_images_follow_the_annotated_size(tmp_path, drawn, importing, check_pixels):
    rows = turn(tmp_path, drawn, 6)
    for row, d in zip(rows, drawn, strict=True):
        row |= {"width": d.width, "height": d.height}
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    importing(tmp_path / "mine.jsonl")
    assert check_pixels(tmp_path / "out") == 60


@pytest.mark.parametrize("orientation", [3, 6])
def test_without_a_size_turned_images_need_the_flag(tmp_path, drawn, importing, check_pixels, orientation):
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, turn(tmp_path, drawn, orientation))))
    with pytest.raises(ValueError, match=r"--orientation must say .* since 20 images, such as 0.png, have an EXIF"):
        importing(tmp_path / "mine.jsonl", boxes="xyxy-pixel")
    importing(tmp_path / "mine.jsonl", boxes="xyxy-pixel", orientation="stored")
    assert check_pixels(tmp_path / "out") == 60


def test_turned_images_without_boxes_need_no_flag(tmp_path, drawn, importing):
    rows = [{"image": row["image"], "caption": "x"} for row in turn(tmp_path, drawn, 6)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert importing(tmp_path / "mine.jsonl")[0]["train"] == 20


def test_five_lines_of_one_cause_are_logged_and_the_rest_counted(tmp_path, drawn, importing, caplog):
    rows = [{"image": drawn[0].name, "caption": "x"}] + [{"image": "gone.png", "caption": "x"}] * 30
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    importing(tmp_path / "mine.jsonl")
    assert caplog.text.count("no image") == 6 and "no image: 25 more; refused.csv lists all" in caplog.text


@pytest.mark.parametrize("done", [False, True], ids=["stopped", "complete"])
def test_an_import_begun_by_an_older_version_is_refused_in_a_sentence(tmp_path, records, importing, monkeypatch, done):
    if done:
        importing(records, "old")
    else:
        with monkeypatch.context() as stopped, pytest.raises(Stop):
            stopped.setattr(rounds, "write_shard", lambda *_: (_ for _ in ()).throw(Stop))
            importing(records, "old")
    plan = json.loads((tmp_path / "old" / ".import" / "plan.json").read_text())
    del plan["layout"]
    (tmp_path / "old" / ".import" / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(ValueError, match=r"old holds an import that another version of this package began, .*delete"):
        importing(records, "old", retry_failed=done)
    if done:
        with pytest.raises(ValueError, match="--output must not hold a complete import"):
            importing(records, "old")
