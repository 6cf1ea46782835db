"""Files are written whole or not at all, and JSON holds no NaN."""

import json

import pytest

from fgclip_fast.files.whole_file import replacing, write_json, write_whole


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "figures.json"
    write_whole(file, "old")
    with pytest.raises(RuntimeError, match="disk full"), replacing(file) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError("disk full")
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
    assert file.read_text() == "old"


def test_text_is_written_as_utf8_and_bytes_as_they_are(tmp_path):
    write_whole(tmp_path / "text", "12 × 3")
    assert (tmp_path / "text").read_bytes() == "12 × 3".encode()
    write_whole(tmp_path / "bytes", b"\x00\xff")
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"


def test_json_has_null_for_floats_that_json_lacks(tmp_path):
    write_json(tmp_path / "a.json", {"top1": float("nan"), "interval": (0.5, float("inf")), "n": [{"x": 1}]})
    stored = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert stored == {"top1": None, "interval": [0.5, None], "n": [{"x": 1}]}
