"""A stage writes each record once: the same bytes however it runs, stops and goes on."""

import fcntl
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import pytest

from fgclip_fast.curate import Done, LeftOut, Stage, run, running
from fgclip_fast.curate.folder import DONE, DROPPED, FAILED, OutputFolder
from fgclip_fast.curate.phrases import Images
from fgclip_fast.curate.stage import LeftRegion
from fgclip_fast.curate.units import images_in, shards_of
from fgclip_fast.data.causes import CORRUPT_IMAGE, NOT_JSON
from fgclip_fast.data.shards import Shard, ShardWriter, expand
from tests.curate.shards import contents, jpeg, records, write


@dataclass(frozen=True, kw_only=True)
class Marked(Stage):
    """Marks records; fails where the file ``flaw`` names them, drops those without a number."""

    name: ClassVar[str] = "marked"
    mark: str = "seen"

    def function(self, known):
        def marked(item):
            if "number" not in item.fields:
                raise LeftOut("no number", "detail")
            if str(item.fields["number"]) in _flawed:
                raise LeftOut("flawed", again=True)
            _called[item.fields["number"]] += 1
            return Done({**item.fields, "mark": self.mark}, Counter(marks=1), (LeftRegion(0, "small", "text"),))

        return marked


_flawed: set[str] = set()
_called: Counter[int] = Counter()


@pytest.fixture
def units(tmp_path):
    _flawed.clear()
    _called.clear()
    write(tmp_path / "mine" / "a-0.tar", {"number": 0}, {"number": 1}, {})
    write(tmp_path / "mine" / "a-1.tar", {"number": 2}, {"number": 3})
    return shards_of(expand(str(tmp_path / "mine")))


def test_records_are_written_in_order_and_those_left_out_are_named(units, tmp_path):
    _flawed.add("2")
    counts = run(Marked(), units, tmp_path / "out", workers=1)
    assert [fields["number"] for fields in records(tmp_path / "out")] == [0, 1, 3]
    assert counts["records"] == 5 and counts["marks"] == 3
    assert counts["records dropped: no number"] == counts["records failed: flawed"] == 1
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [tuple(row.values()) for row in parquet.read_table(tmp_path / "out" / "a-0.parquet").to_pylist()]
    assert ("0002", None, DROPPED, "no number", "detail") in rows and ("0000", None, DONE, "", "") in rows
    assert ("0000", 0, DROPPED, "small", "text") in rows
    (failed, *_) = parquet.read_table(tmp_path / "out" / "a-1.parquet").to_pylist()
    assert failed["status"] == FAILED and failed["cause"] == "flawed"


def test_what_is_done_is_not_done_again_and_failed_records_are_tried_again(units, tmp_path):
    _flawed.add("2")
    run(Marked(), units, tmp_path / "out", workers=1)
    _flawed.clear()
    run(Marked(), units, tmp_path / "out", workers=1)
    assert _called == {0: 1, 1: 1, 3: 1}
    counts = run(Marked(), units, tmp_path / "out", workers=1, retry_failed=True)
    assert _called == {0: 1, 1: 1, 2: 1, 3: 2} and not counts["records failed"]
    assert [fields["number"] for fields in records(tmp_path / "out")] == [0, 1, 2, 3]
    run(Marked(), units, tmp_path / "whole", workers=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_stop_between_a_shard_and_its_outcome_loses_and_repeats_nothing(units, tmp_path, monkeypatch):
    run(Marked(), units, tmp_path / "whole", workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(Marked(), units, tmp_path / "out", workers=1)
    assert (tmp_path / "out" / "a-0.tar").exists()
    (tmp_path / "out" / ".a-1.tar.123.partial").write_bytes(b"half")
    run(Marked(), units, tmp_path / "out", workers=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not list((tmp_path / "out").glob(".*.partial"))


def test_a_changed_source_is_read_again_and_other_settings_are_refused(units, tmp_path):
    run(Marked(), units, tmp_path / "out", workers=1)
    write(tmp_path / "mine" / "a-1.tar", {"number": 7})
    run(Marked(), units, tmp_path / "out", workers=1)
    assert [fields["number"] for fields in records(tmp_path / "out")] == [0, 1, 7] and _called[0] == 1
    with pytest.raises(ValueError, match=r"curate marked: .* other shards or settings \(mark\); choose another"):
        run(Marked(mark="other"), units, tmp_path / "out", workers=1)


def test_two_processes_cannot_work_in_one_folder(units, tmp_path):
    run(Marked(), units, tmp_path / "out", workers=1)
    with (tmp_path / "out" / "_marked" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process works in"):
            run(Marked(), units, tmp_path / "out", workers=1)


def test_the_folder_of_the_shards_is_refused(units, tmp_path):
    with pytest.raises(ValueError, match="--output must be another folder"):
        run(Marked(), units, tmp_path / "mine", workers=1)


def test_broken_json_and_keys_with_folders_are_handled(tmp_path):
    with ShardWriter(tmp_path / "a.tar") as shard:
        shard.write("0", jpg=jpeg(), json=b"{")
    counts = run(Marked(), shards_of([tmp_path / "a.tar"]), tmp_path / "out", workers=1)
    assert counts[f"records dropped: {NOT_JSON}"] == 1
    assert len(Shard(tmp_path / "out" / "a.tar")) == 0


def test_without_pyarrow_the_log_tells_that_there_are_no_tables(units, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(running, "has_tables", lambda: False)
    monkeypatch.setattr("fgclip_fast.curate.folder.has_tables", lambda: False)
    run(Marked(), units, tmp_path / "out", workers=1)
    assert "pip install 'fgclip_fast[curate]'" in caplog.text and not list((tmp_path / "out").glob("*.parquet"))


def test_images_of_a_folder_become_shards_with_the_texts_beside_them(tmp_path):
    photos = tmp_path / "photos" / "holiday"
    photos.mkdir(parents=True)
    (photos / "a.jpg").write_bytes(jpeg())
    (photos / "b.png").write_bytes(b"not an image")
    (photos / "c.jpeg").write_bytes(jpeg((1, 2, 3)))
    (photos / "c.txt").write_text("a dark square")
    counts = run(Images(), images_in(tmp_path / "photos", 2), tmp_path / "out", workers=1)
    assert counts["images"] == 2 and counts[f"records failed: {CORRUPT_IMAGE}"] == 1
    first, second = records(tmp_path / "out")
    assert first == {"source": {"key": "a", "file": "holiday", "line": 1}}
    assert second["short_caption"] == "a dark square"
    (photos / "b.png").write_bytes(jpeg((5, 5, 5)))
    counts = run(Images(), images_in(tmp_path / "photos", 2), tmp_path / "out", workers=1)
    assert counts["images"] == 3


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no image"):
        images_in(tmp_path, 10)
