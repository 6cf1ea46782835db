"""Files from anywhere: each gives a sample, a skip with its cause or one error, in bounded time and memory."""

import io
import json
import multiprocessing
import os
import resource
import struct
import tarfile
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip_fast.data import records, shards
from fgclip_fast.data.causes import HUGE_RECORD, UNREADABLE, BadRecord
from fgclip_fast.data.decode import decode
from fgclip_fast.data.index import index
from fgclip_fast.data.records import Record, parse
from fgclip_fast.data.shards import Shard, Shards
from fgclip_fast.inputs.tokenizer import Tokenizer

SECONDS, GIGABYTE = 60, 10**9


def within_bounds(call, *arguments):
    """Run ``call`` in a process of its own, which is ended after a minute of work; check the memory that it took."""

    def run(channel):
        torch.set_num_threads(1)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = call(*arguments)
        channel.send((found, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)))
        os._exit(0)

    receiving, sending = multiprocessing.Pipe(duplex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside other threads, which it does not use
        process = multiprocessing.get_context("fork").Process(target=run, args=(sending,))
        process.start()
    sending.close()
    try:
        found, memory = receiving.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"ended with status {process.exitcode} (-24: more than {SECONDS} s of work)") from None
    process.join()
    assert memory < GIGABYTE
    return found


def changed(random, content):
    """A copy with one to eight bytes or bits changed, or a piece cut out, or cut short."""
    copy = bytearray(content)
    kind = random.integers(4)
    if kind == 0:
        return bytes(copy[: random.integers(len(copy))])
    if kind == 1:
        first = random.integers(len(copy))
        del copy[first : first + random.integers(1, 64)]
        return bytes(copy)
    for at in random.integers(len(copy), size=random.integers(1, 9)):
        copy[at] = random.integers(256) if kind == 2 else copy[at] ^ (1 << random.integers(8))
    return bytes(copy)


@pytest.fixture
def tar(tmp_path):
    """Five samples, one with a name that needs a long header."""
    path = tmp_path / "good.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        for number in range(5):
            for part in ("jpg", "json"):
                member = tarfile.TarInfo(f"{number}{'x' * 120 * (number == 2)}.{part}")
                member.size = 300 * number + 7
                file.addfile(member, io.BytesIO(bytes([number]) * member.size))
    return path


def read_all(path):
    """The samples of a shard; None for one that is refused, and nothing if all are."""
    try:
        shard = Shard(path)
    except ValueError:
        return []
    reader = Shards([path])
    found = []
    for number in range(len(shard)):
        try:
            found.append(reader.read(0, number).parts)
        except BadRecord as bad:
            assert bad.cause == UNREADABLE
            found.append(None)
    return found


def test_a_tar_that_ends_at_any_block(tar, tmp_path):
    content, whole, path = tar.read_bytes(), read_all(tar), tmp_path / "cut.tar"

    def cut():
        counts = []
        for end in range(0, len(content), 512):
            path.write_bytes(content[:end])
            found = read_all(path)
            complete = [sample for sample in found if sample in whole]
            assert complete == whole[: len(complete)] and len(found) - len(complete) <= 1, end
            counts.append(len(complete))
        return counts

    counts = within_bounds(cut)
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == 5


@pytest.mark.parametrize("changes", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_tar_with_anything_changed(tar, tmp_path, changes):
    content, path = tar.read_bytes(), tmp_path / "changed.tar"

    def change():
        random = np.random.default_rng(0)
        read = 0
        for _ in range(changes):
            path.write_bytes(changed(random, content))
            read += sum(sample is not None for sample in read_all(path))
        return read

    assert within_bounds(change) > changes


def test_links_devices_and_sparse_files_are_no_samples(tmp_path):
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as file:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.type, member.linkname = kind, "/etc/passwd"
            file.addfile(member)
        for name in ("../../outside.jpg", "/absolute.jpg"):
            file.addfile(tarfile.TarInfo(name))
    found = [Shard(path).read(number) for number in range(len(Shard(path)))]
    assert [(sample.key, sample.parts) for sample in found] == [
        ("../../outside", {"jpg": b""}),
        ("/absolute", {"jpg": b""}),
    ]
    with path.open("wb") as file:
        file.truncate(64 * 2**30)
    assert within_bounds(lambda: index(path).samples) == 0


def test_a_sample_beyond_the_bound_and_a_file_that_shrank_are_refused(tar, tmp_path, monkeypatch):
    reader = Shards([tar])
    assert len(reader.read(0, 0).parts) == 2
    os.truncate(tar, 2048)
    with pytest.raises(BadRecord, match=r"unreadable sample: .*the file has become shorter"):
        reader.read(0, 4)
    monkeypatch.setattr(shards, "MAX_SAMPLE", 512)
    with pytest.raises(BadRecord, match=r"unreadable sample: .*a sample must have at most 512 bytes, got"):
        reader.read(0, 0)


def test_a_record_with_anything_changed(record):
    content = json.dumps(record(1)).encode()

    def change():
        random = np.random.default_rng(0)
        used = 0
        for _ in range(1000):
            with suppress(BadRecord):
                used += isinstance(parse(changed(random, content)), Record)
        return used

    assert 50 < within_bounds(change) < 950


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 10**7,
        b'{"caption": "a", "x": ' + b"[" * 10**5 + b"]" * 10**5 + b"}",
        b'{"caption": "a", "bbox_info": [{"bbox": [0, 0, 1, ' + b"9" * 5000 + b'], "short_expr": "a"}]}',
        b'{"caption": "a", "x": [' + b"1," * 25_000_000 + b"1]}",
    ],
    ids=["deep", "deep inside", "5,000 digits", "50 MB"],
)
def test_hostile_json_is_refused(content):
    def cause():
        with pytest.raises(BadRecord) as refused:
            parse(content)
        return refused.value.cause

    assert within_bounds(cause) in ("broken JSON", HUGE_RECORD)


def test_many_regions_and_negatives_and_odd_numbers():
    region = {"bbox": [0.1, 0.1, 0.5, 0.5], "short_expr": "a cat"}
    negatives = {"short_expr_negs": [f"dog {number}" for number in range(10_000)]}
    entries = [region] * 10_000 + [region | negatives]
    entries += [
        region | {"bbox": [0, 0, 1, number]} for number in (float("nan"), float("inf"), 1e308, 10**1000, None, "1e999")
    ]
    content = json.dumps({"caption": "a", "bbox_info": entries}).encode()

    def read():
        found = parse(content)
        return len(found.regions), len(found.regions[-1].negatives), len(found.defects)

    regions, kept, defects = within_bounds(read)
    assert (regions, kept) == (10_001, 10_000) and defects >= 6


def test_texts_of_megabytes_are_cut_soon():
    tokenizer = Tokenizer()
    texts = ["word " * 2_000_000, "w" * 5_000_000, "1😀" * 500_000, "\u0301" * 10**6]
    lengths = within_bounds(lambda: tokenizer(texts, 248).offsets.diff().tolist())
    assert lengths == [248] * 4
    known = tokenizer(["a " + "b" * 100])
    assert tokenizer(["a " + "b" * 100]).token.equal(known.token) and "b" * 100 not in tokenizer._known
    assert records.MAX_JSON > 10**6


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*between, width=8, height=8):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(8 * 9)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(between) + rows + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", [b"zTXtk\0\0", b"iCCPk\0\0", b"iTXtk\0\1\0\0\0"], ids=lambda kind: kind[:4].decode())
def test_metadata_that_unpacks_to_gigabytes(kind):
    packed = zlib.compress(bytes(10**8), 9)
    content = png(*[chunk(kind[:4], kind[4:] + packed)] * 20)

    def refused():
        with pytest.raises(BadRecord, match="corrupt image"):
            decode(content, 32)

    within_bounds(refused)


def test_of_many_frames_the_first_is_decoded():
    frames = [Image.new("L", (8, 8), number % 255) for number in range(5000)]
    file = io.BytesIO()
    frames[9].save(file, "GIF", save_all=True, append_images=frames)
    assert within_bounds(lambda: decode(file.getvalue(), 8).float().mean().item()) == 9
