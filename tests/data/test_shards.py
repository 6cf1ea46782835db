"""Shards: written samples are read back, damaged shards give their readable samples, patterns list shards."""

import io
import os
import tarfile

import pytest

from fgclip_fast.data import index as module
from fgclip_fast.data.causes import UNREADABLE, BadRecord
from fgclip_fast.data.index import extent, extents, index
from fgclip_fast.data.shards import Shard, Shards, ShardWriter, expand


def archive(path, names, format=tarfile.USTAR_FORMAT):
    """A tar of small files, each holding its own name; a name that ends in "/" is a folder."""
    with tarfile.open(path, "w", format=format) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            member.size = 0 if name.endswith("/") else len(name.encode())
            tar.addfile(member, io.BytesIO(name.encode()))
    return path


def keys_of(path):
    shard = Shard(path)
    return [(sample.key, list(sample.parts)) for sample in map(shard.read, range(len(shard)))]


def test_written_samples_are_read_back(tmp_path):
    with ShardWriter(tmp_path / "folder" / "a.tar") as shard:
        shard.write("000000", jpg=b"\xff" * 1000, json=b"{}")
        shard.write("000001", jpg=b"", txt=b"x")
    samples = [Shard(tmp_path / "folder" / "a.tar").read(i) for i in range(2)]
    assert samples == [("000000", {"jpg": b"\xff" * 1000, "json": b"{}"}), ("000001", {"jpg": b"", "txt": b"x"})]


def test_equal_samples_make_equal_files(tmp_path):
    for name in "ab":
        with ShardWriter(tmp_path / name) as shard:
            shard.write("0", jpg=b"image")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_shard_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path / "a.tar") as shard:
        shard.write("0", jpg=b"image")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["", "a.b", "a/b"])
def test_keys_that_readers_would_group_otherwise_are_refused(tmp_path, key):
    with pytest.raises(ValueError, match="a key without"), ShardWriter(tmp_path / "a.tar") as shard:
        shard.write(key, jpg=b"image")


def test_members_are_grouped_as_webdataset_does(tmp_path):
    names = ["./", "a/", "a/1.jpg", "a/1.seg.PNG", "b/1.jpg", "._b.jpg", "nameless", "b/1.json", "2.jpg", "1.jpg"]
    assert keys_of(archive(tmp_path / "a.tar", names)) == [
        ("a/1", ["jpg", "seg.png"]),
        ("b/1", ["jpg", "json"]),
        ("2", ["jpg"]),
        ("1", ["jpg"]),
    ]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_long_names_are_read(tmp_path, format):
    names = [f"{letter * 120}/ü{letter}.{kind}" for letter in "ab" for kind in ("jpg", "json")]
    path = archive(tmp_path / "a.tar", names, format)
    assert keys_of(path) == [("a" * 120 + "/üa", ["jpg", "json"]), ("b" * 120 + "/üb", ["jpg", "json"])]
    assert Shard(path).read(1).parts["json"].decode() == names[-1]


def test_samples_are_read_whole_whose_members_lie_apart(tmp_path):
    path = archive(tmp_path / "a.tar", [f"{n}.{kind}" for kind in ("jpg", "json", "txt") for n in range(3)])
    whole = [(str(n), ["jpg", "json", "txt"]) for n in range(3)]
    assert keys_of(path) == whole and (tmp_path / "a.tar.index").is_file()
    assert keys_of(path) == whole and extent(path).samples == 3, "from the index file too"
    assert Shard(path).read(2).parts["txt"] == b"2.txt"
    again = archive(tmp_path / "b.tar", ["1.jpg", "1.txt", "2.jpg", "1.jpg", "1.txt", "2.txt"])
    assert keys_of(again) == [("1", ["jpg", "txt"]), ("2", ["jpg", "txt"]), ("1", ["jpg", "txt"])]


def test_names_that_begin_with_the_current_folder_are_the_same(tmp_path):
    path = archive(
        tmp_path / "a.tar", ["./1.jpg", "1.json", "./v1.0/1.jpg", "v1.0/1.json", "./.hidden.jpg", "v1.1/1.jpg"]
    )
    assert keys_of(path) == [("1", ["jpg", "json"]), ("v1.0/1", ["jpg", "json"]), ("v1.1/1", ["jpg"])]


def test_a_size_beside_the_header_counts(tmp_path):
    with (tmp_path / "a.tar").open("wb") as file:
        for key in "abc":
            told, body = b"12 size=513\n", (key * 513).encode()
            extra, member = tarfile.TarInfo("PaxHeaders/x"), tarfile.TarInfo(f"{key}.jpg")
            extra.type, extra.size, member.size = tarfile.XHDTYPE, len(told), 0
            file.write(extra.tobuf(tarfile.USTAR_FORMAT) + told.ljust(512, b"\0"))
            file.write(member.tobuf(tarfile.USTAR_FORMAT) + body.ljust(1024, b"\0"))
        file.write(bytes(1024))
    shard = Shard(tmp_path / "a.tar")
    assert [shard.read(i).parts["jpg"] for i in range(3)] == [(key * 513).encode() for key in "abc"]
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert [member.size for member in tar] == [513] * 3


def test_index_is_kept_and_made_anew_when_the_shard_changes(tmp_path):
    path = archive(tmp_path / "a.tar", ["1.jpg", "2.jpg"])
    assert index(path).samples == 2
    kept = tmp_path / "a.tar.index"
    made = kept.stat().st_mtime_ns
    assert index(path).samples == 2 and kept.stat().st_mtime_ns == made
    archive(path, ["1.jpg", "2.jpg", "3.jpg"])
    os.utime(path, ns=(0, 1))  # not the size alone
    assert extent(path).samples == 3


def test_index_of_a_read_only_folder_goes_to_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = archive(tmp_path / "a.tar", ["1.jpg"])
    (tmp_path / "a.tar.index").mkdir()  # root may write anywhere, but not over a folder
    assert len(Shard(path)) == 1
    assert len(list((tmp_path / "cache").rglob("*.index"))) == 1
    assert len(Shard(path)) == 1


def test_count_of_img2dataset_is_used_before_an_index_exists(tmp_path):
    path = archive(tmp_path / "00000.tar", ["1.jpg", "2.jpg"])
    (tmp_path / "00000_stats.json").write_text('{"successes": 7}')
    assert extent(path).samples == 7
    index(path)
    assert extent(path).samples == 2


@pytest.mark.parametrize("threads", [False, True])
def test_many_shards_are_counted_as_each_alone(tmp_path, monkeypatch, threads):
    """Some with an index, some without, with one out of date, or with img2dataset's count; in two folders."""
    monkeypatch.setattr(module, "_FEW", 4)
    monkeypatch.setattr(module, "_NEAR", -1.0 if threads else 1e9)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    paths = [archive(tmp_path / "ab"[n % 2] / f"{n}.tar", [f"{i}.jpg" for i in range(n % 3)]) for n in range(1, 20)]
    for n, path in enumerate(paths):
        if n % 4 < 2:
            index(path)
        if n % 4 == 1:
            archive(path, ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])
        if n % 4 == 2:
            path.with_name(f"{path.stem}_stats.json").write_text('{"successes": 7}')
    with paths[3].open("r+b") as file:
        file.truncate(700)
    found = list(extents(paths))
    assert found == [extent(path) for path in paths]
    assert [one.size for one in found] == [path.stat().st_size for path in paths]
    assert {one.samples for one in found} == {0, 1, 2, 4, 7}


@pytest.mark.parametrize("cut", [2048 + 512 + 2, 2048 + 100], ids=["in a file", "in a header"])
def test_a_shard_that_ends_early_gives_its_readable_samples(tmp_path, cut):
    path = archive(tmp_path / "a.tar", ["1.jpg", "2.jpg", "3.jpg"])
    path.write_bytes(path.read_bytes()[:cut])
    shard = Shard(path)
    assert shard.damaged and len(shard) == 2 and shard.read(1).parts == {"jpg": b"2.jpg"}
    assert extent(path).damaged_at == 2048


@pytest.mark.parametrize("content, why", [(b"<html>" * 500, "not a tar file"), (b"\x1f\x8b" + b"x" * 999, "unpack it")])
def test_a_file_that_is_not_a_tar_is_named(tmp_path, content, why):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.tar: .*{why}"):
        Shard(tmp_path / "a.tar")


def test_a_negative_size_is_damage(tmp_path):
    path = archive(tmp_path / "a.tar", ["1.jpg", "2.jpg"])
    content = bytearray(path.read_bytes())
    content[1024 + 124 : 1024 + 136] = b"-0001000".ljust(12, b"\0")
    header = content[1024 : 1024 + 512]
    content[1024 + 148 : 1024 + 156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    path.write_bytes(content)
    assert index(path).damaged_at == 1024 and index(path).samples == 1


def test_an_empty_shard_has_no_samples(tmp_path):
    assert len(Shard(archive(tmp_path / "a.tar", []))) == 0
    (tmp_path / "b.tar").touch()
    assert len(Shard(tmp_path / "b.tar")) == 0


def test_a_sample_that_cannot_be_read_is_a_bad_record(tmp_path):
    path = archive(tmp_path / "a.tar", ["1.jpg", "2.jpg"])
    shards = Shards([path, tmp_path / "gone.tar"])
    assert shards.read(0, 1).key == "2"
    path.write_bytes(path.read_bytes()[:1024])
    for shard, sample in ((0, 1), (0, 2), (1, 0)):
        with pytest.raises(BadRecord) as bad:
            shards.read(shard, sample)
        assert bad.value.cause == UNREADABLE


def test_patterns_name_shards(tmp_path):
    for number in (0, 1, 9, 10):
        archive(tmp_path / f"a-{number:03d}.tar", [])
    names = lambda pattern: [path.name for path in expand(str(tmp_path / pattern))]  # noqa: E731
    assert names("a-{009..010}.tar") == ["a-009.tar", "a-010.tar"]
    assert names("{a,a}-{000,001}.tar") == ["a-000.tar", "a-001.tar"]
    assert names("a-00*.tar") == ["a-000.tar", "a-001.tar", "a-009.tar"]
    assert names("") == names("*.tar") == ["a-000.tar", "a-001.tar", "a-009.tar", "a-010.tar"]
    assert names(f"a-000.tar::{tmp_path}/a-010.tar") == ["a-000.tar", "a-010.tar"]


@pytest.mark.parametrize("pattern", ["a-{000..001}.tar", "nothing", "b*.tar", "."])
def test_a_pattern_without_shards_names_what_is_missing(tmp_path, pattern):
    (tmp_path / "a-000.tar").touch() if "{" in pattern else None
    missing = "a-001.tar" if "{" in pattern else str(tmp_path)
    with pytest.raises(FileNotFoundError, match=missing):
        expand(str(tmp_path / pattern))
