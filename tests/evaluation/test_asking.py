"""Several suites at once: images and texts that they share, embeddings of texts that are kept, progress."""

import json
import multiprocessing
from dataclasses import replace

import pytest
import torch

from fgclip_fast import suites
from fgclip_fast.config import Data
from fgclip_fast.evaluation import boxes, retrieval, share, text_rows
from fgclip_fast.evaluation.share import Share, parts_of
from fgclip_fast.evaluation.text_rows import TextRows, key
from fgclip_fast.suites import Task
from tests.evaluation.planted import Planted, grey, unit


class Watched(Planted):
    """Counts the passes, and the images of each."""

    def __init__(self, *planted):
        super().__init__(*planted)
        self.passes = []

    def encode_image_and_regions(self, pixels, boxes, unit="pixel"):
        self.passes.append((len(pixels), sum(map(len, boxes))))
        return super().encode_image_and_regions(pixels, boxes, unit)


NAMES = ["cat", "dog"]


@pytest.fixture
def task(tmp_path):
    """COCO's captions and boxes of three images, and SugarCrepe about two of them and with two of the captions."""
    coco = tmp_path / "coco"
    images = [{"id": n, "width": 48, "height": 40, "file_name": f"{n}.png"} for n in range(3)]
    annotations = [{"image_id": n, "bbox": [1, 1, 40, 30], "category_id": n % 2} for n in range(3)]
    cases = {n: {"filename": f"{n}.png", "caption": f"t{n}", "negative_caption": f"t{n + 1}"} for n in range(2)}
    files = {
        coco / "annotations" / "captions_val2017.json": {
            "images": images, "annotations": [{"image_id": n, "caption": f"t{n}"} for n in range(3)],
        },
        coco / "annotations" / "instances_val2017.json": {
            "images": images, "annotations": annotations,
            "categories": [{"id": n, "name": name} for n, name in enumerate(NAMES)],
        },
        tmp_path / "sugarcrepe" / "add_obj.json": cases,
    }  # fmt: skip
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    for n in range(3):
        grey(coco / "val2017" / f"{n}.png", n)
    (tmp_path / "t.txt").write_text("a {}")
    return Task(data=Data(), questions=tmp_path, several=True, templates=tmp_path / "t.txt")


def model(**changes):
    texts = {f"t{n}": unit(n) for n in range(3)} | {f"a {name}": unit(n) for n, name in enumerate(NAMES)}
    return Watched({n: unit(n) for n in range(3)}, texts | changes)


SUITES = ["retrieval", "boxes", "compositional"]


def values(found):
    return {name: figures.values for name, figures in found.items()}


def test_an_image_of_several_suites_is_decoded_once_and_seen_in_one_pass(task):
    asked = model()
    together = suites.evaluate(asked, SUITES, task)
    assert sorted(asked.decoded) == ["0.png", "1.png", "2.png"] and asked.passes == [(3, 3)]
    alone = {name: f for suite in SUITES for name, f in suites.evaluate(model(), [suite], task).items()}
    assert together == alone and list(together) == list(alone)


def test_a_text_of_several_suites_is_embedded_once(task):
    asked = model()
    suites.evaluate(asked, SUITES, task)
    assert sorted(asked.asked) == ["a cat", "a dog", "t0", "t1", "t2"]


def test_two_models_never_share_embeddings(task):
    first, second = (suites.evaluate(m, SUITES, task) for m in (model(), model(t0=unit(1), t1=unit(0))))
    assert first["retrieval/coco"].values["image_to_text_r@1"] == 1.0
    assert second["retrieval/coco"].values["image_to_text_r@1"] == 1 / 3


def test_texts_that_a_folder_keeps_are_not_embedded_and_figures_are_the_same(task, tmp_path):
    without = suites.evaluate(model(), SUITES, task)
    kept = tmp_path / "kept"
    assert suites.evaluate(model(), SUITES, task, text_rows.of_model(kept, "m")) == without
    again = model()
    assert suites.evaluate(again, SUITES, task, text_rows.of_model(kept, "m")) == without and again.asked == []
    suites.evaluate(other := model(), SUITES, task, text_rows.of_model(kept, "another"))
    assert len(other.asked) == 5
    suites.evaluate(part := model(), ["compositional"], replace(task, limit=1), text_rows.of_model(kept, "m"))
    assert part.asked == []


def test_kinds_of_texts_are_kept_apart():
    assert (
        len({key("short", "a"), key("long", "a"), key("class", "a"), key("class", "a", "b"), key("short", "ab")}) == 5
    )
    assert key("class", "a", "b") != key("class", "ab", "")


def test_a_broken_file_costs_its_texts_alone(task, tmp_path, caplog):
    without = suites.evaluate(model(), SUITES, task)
    suites.evaluate(model(), SUITES, task, text_rows.of_model(tmp_path / "kept", "m"))
    first, *_ = sorted((tmp_path / "kept").glob("*/*.safetensors"))
    first.write_bytes(first.read_bytes()[:50])
    asked = model()
    assert suites.evaluate(asked, SUITES, task, text_rows.of_model(tmp_path / "kept", "m")) == without
    assert 0 < len(asked.asked) < 5 and "is not used" in caplog.text
    suites.evaluate(asked := model(), SUITES, task, text_rows.of_model(tmp_path / "kept", "m"))
    assert asked.asked == [], "the file is whole again"


def test_a_folder_that_cannot_be_written_is_told_once_and_costs_nothing_else(task, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    found = suites.evaluate(model(), SUITES, task, TextRows(tmp_path / "file" / "no folder"))
    assert found == suites.evaluate(model(), SUITES, task)
    assert caplog.text.count("embeddings of texts are not kept") == 1


def write_many(folder, number, start):
    """Write and read the same rows as others at the same time."""
    start.wait()
    for block in range(20):
        keys = [key("short", f"{block} {n}") for n in range(5)]
        TextRows(folder).save(keys, torch.full((5, 4), float(block)))
        rows = TextRows(folder).rows(keys)
        assert rows.tolist() == [[block] * 4] * 5, number


def test_processes_that_write_at_once_leave_whole_files(tmp_path, caplog):
    context = multiprocessing.get_context("fork")
    start = context.Event()
    writers = [context.Process(target=write_many, args=(tmp_path, number, start)) for number in range(3)]
    for writer in writers:
        writer.start()
    start.set()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    rows = TextRows(tmp_path)
    assert rows.missing([key("short", f"{b} {n}") for b in range(20) for n in range(5)]) == [] and not caplog.text
    assert len(list(tmp_path.iterdir())) == 20


def test_models_not_used_for_long_are_removed_beyond_a_size_and_nothing_else(tmp_path, monkeypatch):
    rows = torch.zeros(100, 64)
    keys = [key("short", str(n)) for n in range(100)]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"0" * 10**6)
    for name in ("old", "new"):
        text_rows.of_model(tmp_path, name).save(keys, rows)
    text_rows.of_model(tmp_path, "old")  # used once more
    monkeypatch.setattr(text_rows, "LARGEST", 60_000)
    third = text_rows.of_model(tmp_path, "third")
    third.save(keys, rows)
    assert text_rows.of_model(tmp_path, "old").missing(keys) == []
    assert text_rows.of_model(tmp_path, "third").missing(keys) == [], "its own is never removed"
    assert len(text_rows.of_model(tmp_path, "new").missing(keys)) == 100
    assert (tmp_path / "mine" / "model.safetensors").stat().st_size == 10**6


def test_an_option_that_a_suite_does_not_read_is_refused(task):
    with pytest.raises(TypeError, match=r"this suite reads .*images, kind.*, got templates"):
        retrieval.evaluate(model(), task.questions, templates=task.templates)
    with pytest.raises(TypeError, match="got kind"):
        boxes.evaluate(model(), task.questions, kind="long")


def test_long_work_shows_how_far_it_is(monkeypatch, capsys):
    clock = iter(range(100))
    monkeypatch.setattr(share.time, "monotonic", lambda: float(next(clock)))
    Share(shown=True).measure(parts_of(200), len, sum, "images")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("128/200 images, ") and "a second" in lines[0] and lines[-1].startswith("200/200")
    assert Share().measure(parts_of(200), len, sum, "images") == 200 and capsys.readouterr().out == ""
