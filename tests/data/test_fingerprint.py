"""Fingerprints tell sets of shards apart."""

import shutil

from fgclip_fast.data.fingerprint import fingerprint, fingerprints
from tests import runs


def test_other_samples_have_another_fingerprint(tmp_path):
    one = fingerprint(str(runs.shard(tmp_path / "a" / "x.tar", ["a mug"])))
    two = fingerprint(str(runs.shard(tmp_path / "b" / "x.tar", ["a mug", "a cat"])))
    assert (one["shards"], one["samples"], two["samples"]) == (1, 1, 2)
    assert one["fingerprint"] != two["fingerprint"]


def test_a_copy_has_the_same_fingerprint(tmp_path):
    path = runs.shard(tmp_path / "a" / "x.tar", ["a mug"])
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    assert fingerprint(str(path)) == fingerprint(str(tmp_path / "c" / "x.tar"))


def test_no_validation_shards_have_no_fingerprint(tmp_path):
    path = runs.shard(tmp_path / "x.tar", ["a mug"])
    assert list(fingerprints({"train": [path], "val": ""})) == ["train"]
    assert fingerprints({"train": [path]})["train"] == fingerprint(str(path))
