"""Finished shards are copied to object storage once, and training reads them there."""

import pytest

pytest.importorskip("fsspec")

import fsspec

from fgclip_fast.curate import upload as uploading
from fgclip_fast.curate.finished import Shards
from fgclip_fast.data.file_order import examples
from tests.curate.shards import contents, jpeg, region, write

COLOURS = ("red", "green", "blue", "white", "black", "yellow")


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """An object storage in memory, empty."""
    monkeypatch.setenv("FGCLIP_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    system.store.clear()
    return system


@pytest.fixture
def mine(tmp_path):
    images = [jpeg((40 * i, 250 - 40 * i, 30 * i % 99)) for i in range(6)]
    fields = [{"short_caption": f"a {name} mug", "bbox_info": [region(f"a {name} mug")]} for name in COLOURS]
    return [write(tmp_path / "mine" / "a.tar", *fields, images=images)]


def test_shards_and_their_indexes_are_copied_once_and_training_reads_them(storage, mine, tmp_path, monkeypatch):
    stage = Shards(shard_size=2, upload="memory://bucket/set")
    stage.write(mine, tmp_path / "out", workers=1)
    there = {name.rpartition("/")[2]: storage.cat_file(name) for name in storage.find("/bucket/set")}
    here = contents(tmp_path / "out")
    assert {name: there[name] for name in here} == here and len(here) == 3
    assert there.keys() == {*here, *(f"{name}.index" for name in here)}
    texts = [example.short for example in examples("memory://bucket/set", image_size=8)]
    assert all(text.endswith(f"a {name} mug") for text, name in zip(texts, COLOURS, strict=True))
    monkeypatch.setattr(uploading, "_send", pytest.fail)
    stage.write(mine, tmp_path / "out", workers=1)


def test_a_stop_or_an_error_goes_on_with_the_shards_that_are_missing(storage, mine, tmp_path, monkeypatch):
    put = type(storage).put_file
    sent = []

    def failing(self, path, target, **options):
        if len(sent) == 2:
            raise PermissionError("no space")
        sent.append(target)
        put(self, path, target, **options)

    stage = Shards(shard_size=2, upload="memory://bucket/set")
    with monkeypatch.context() as patch:
        patch.setattr(type(storage), "put_file", failing)
        with pytest.raises(OSError, match=r"train-00001\.tar.* cannot be copied to memory://bucket/set: no space"):
            stage.write(mine, tmp_path / "out", workers=1)
    monkeypatch.setattr(type(storage), "put_file", lambda *args, **_: (sent.append(args[2]), put(*args))[1])
    stage.write(mine, tmp_path / "out", workers=1)
    assert [name.rpartition("/")[2] for name in sent if name.endswith(".tar")] == [*contents(tmp_path / "out")]


def test_a_copy_of_another_size_is_an_error(storage, mine, tmp_path, monkeypatch):
    monkeypatch.setattr(type(storage), "put_file", lambda self, path, target, **_: self.pipe_file(target, b"half"))
    with pytest.raises(OSError, match=r"must have \d+ bytes, got 4"):
        Shards(upload="memory://bucket/set").write(mine, tmp_path / "out", workers=1)
    with pytest.raises(ValueError, match=r"upload must be a URL such as s3://bucket/mine, got 'folder'"):
        Shards(upload="folder")
