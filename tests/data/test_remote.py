"""Shards behind a URL: the same batches as from files, in a cache of bounded size, and no sample in another's place."""

import json
import logging
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import forkserver
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import fsspec
import pytest
import torch

from fgclip_fast.config import Data
from fgclip_fast.data import copies as copying, remote, tries
from fgclip_fast.data.file_order import examples
from fgclip_fast.data.fingerprint import fingerprint
from fgclip_fast.data.index import index
from fgclip_fast.data.loader import Loader
from fgclip_fast.data.shards import expand
from fgclip_fast.inputs.tokenizer import Tokenizer
from tests import s3

TOKENIZER = Tokenizer()
SHARDS = 6


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of copies; failures are tried again at once."""
    monkeypatch.setenv("FGCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tries, "_WAIT", 0.0)
    remote._beside.cache_clear()
    forkserver._forkserver._stop()  # one of an earlier test has that test's environment
    return tmp_path / "cache" / "shards"


@pytest.fixture
def stored(tmp_path, encoded, record, write_shard):
    """A folder with six shards of five samples."""
    for shard in range(SHARDS):
        numbers = range(5 * shard, 5 * shard + 5)
        write_shard(tmp_path / "stored" / f"{shard}.tar", [(encoded(seed=n), record(n)) for n in numbers])
    return tmp_path / "stored"


def copies(cache):
    return sorted(path.name for path in cache.glob("*/*.tar"))


def allow(monkeypatch, stored, shards):
    """Let the copies take the space of some shards."""
    size = max(path.stat().st_size for path in stored.glob("*.tar"))
    monkeypatch.setenv("FGCLIP_CACHE_GB", str(shards * size / 1e9))


def batches(pattern, after=0, steps=9, workers=0, **settings):
    data = replace(Data(val="", decoder="cpu", lanes=2, window=2), train=str(pattern), workers=workers, **settings)
    loader = Loader(data, image_size=16, batch_size=4, seed=3, tokenizer=TOKENIZER)
    arriving = loader.batches(after)
    return [next(arriving)[0] for _ in range(steps)], loader


def equal(some, others):
    return all(
        torch.equal(a.image, b.image) and torch.equal(a.texts.token, b.texts.token) and torch.equal(a.boxes, b.boxes)
        for a, b in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_files_even_if_copies_are_evicted_all_the_time(cache, stored, monkeypatch, workers):
    allow(monkeypatch, stored, 2)
    here, _ = batches(stored)
    there, loader = batches(f"file://{stored}/*.tar", workers=workers)
    assert equal(here, there) and not loader.counts["unreadable sample"]
    assert len(copies(cache)) <= 2 + max(workers, 1)  # one more for each process that fetches
    resumed, _ = batches(f"file://{stored}/{{0..5}}.tar", after=4, steps=5)
    assert equal(here[4:], resumed)


def test_shards_in_memory_are_read_in_order_and_mixed(cache, stored, monkeypatch):
    memory = fsspec.filesystem("memory")
    for path in stored.glob("*.tar"):
        memory.pipe_file(f"/set/{path.name}", path.read_bytes())
    texts = [example.short for example in examples("memory://set", image_size=8)]
    assert texts == [example.short for example in examples(str(stored), image_size=8)] and len(texts) == 5 * SHARDS
    here, _ = batches(f"{stored}/[0-2].tar@1 {stored}/[3-5].tar@0.4")
    there, _ = batches("memory://set/{0..2}.tar@1 memory://set/{3..5}.tar@0.4")
    assert equal(here, there)


@pytest.mark.parametrize("pattern", ["{0..5}.tar", "*.tar", ""])
def test_shards_of_a_web_server_are_read(cache, stored, pattern):
    pytest.importorskip("aiohttp")
    handler = partial(SimpleHTTPRequestHandler, directory=stored)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = fingerprint(f"http://127.0.0.1:{server.server_port}/{pattern}")
        server.shutdown()
    assert found == fingerprint(str(stored))


@pytest.mark.slow
def test_shards_of_s3_are_read(cache, stored, monkeypatch):
    with s3.served(monkeypatch) as storage:
        for path in stored.glob("*.tar"):
            storage.put_file(str(path), f"bucket/set/{path.name}")
        check_bucket("s3", stored)


def check_bucket(protocol, stored):
    """A bucket's ``set/`` is read as the folder whose files it holds, by each kind of pattern."""
    for pattern in ("{0..5}.tar", "*.tar", ""):
        assert fingerprint(f"{protocol}://bucket/set/{pattern}") == fingerprint(str(stored))
    here, _ = batches(stored)
    there, _ = batches(f"{protocol}://bucket/set/*.tar", workers=1)
    assert equal(here, there)
    with pytest.raises(FileNotFoundError, match=rf"{protocol}://bucket/nowhere/\*\.tar names no tar file"):
        fingerprint(f"{protocol}://bucket/nowhere/*.tar")


class GoogleStorage(BaseHTTPRequestHandler):
    """The calls of Google Cloud Storage's JSON API that read: list a bucket, describe an object, send its bytes."""

    folder: Path

    def do_GET(self):
        address = urlsplit(self.path)
        bucket, _, name = unquote(address.path.rpartition("storage/v1/b/")[2]).partition("/o")
        name, file = name.removeprefix("/"), self.folder / name.rpartition("/")[2]
        query = dict(parse_qsl(address.query))
        if name and not (name == f"set/{file.name}" and file.is_file()):
            self._send(404, b"{}")
        elif query.get("alt") == "media":
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            self._send(206, file.read_bytes()[int(first) : int(last) + 1 if last else None])
        else:
            found = [file] if name else sorted(self.folder.glob("*.tar"))
            items = [self._about(bucket, f"set/{one.name}", one) for one in found]
            items = [item for item in items if item["name"].startswith(query.get("prefix", ""))]
            self._send(200, json.dumps(items[0] if name else {"items": items}).encode())

    def _about(self, bucket, name, file):
        day = "2026-01-01T00:00:00.000Z"
        times = {"generation": "1", "updated": day, "timeCreated": day}
        link = f"http://{self.headers['Host']}/download/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
        return {"bucket": bucket, "name": name, "size": str(file.stat().st_size), "mediaLink": link, **times}

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_shards_of_google_storage_are_read(cache, stored, monkeypatch):
    pytest.importorskip("gcsfs")
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Stored", (GoogleStorage,), {"folder": stored})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
        check_bucket("gs", stored)
        server.shutdown()


def test_a_set_has_the_fingerprint_of_its_files(cache, stored):
    assert fingerprint(f"file://{stored}") == fingerprint(str(stored))


def test_an_index_beside_a_shard_saves_reading_it(cache, stored):
    for path in stored.glob("*.tar"):
        index(path)
    (stored / "5.tar.index").unlink()
    (stored / "5_stats.json").write_text(json.dumps({"successes": 5}))
    assert fingerprint(f"file://{stored}")["samples"] == 5 * SHARDS and copies(cache) == []
    assert [example.short for example in examples(f"file://{stored}", image_size=8)]


def test_another_version_of_a_shard_is_fetched(cache, stored, encoded, record, write_shard):
    first = [example.short for example in examples(f"file://{stored}/0.tar", image_size=8)]
    write_shard(stored / "0.tar", [(encoded(seed=n), record(90 + n)) for n in range(7)])
    again = [example.short for example in examples(f"file://{stored}/0.tar", image_size=8)]
    assert first[0].endswith("mug 0") and again[0].endswith("mug 90") and len(again) == 7


def test_a_failure_is_tried_again_and_then_ends_the_run(cache, stored, monkeypatch):
    (system, _), failures = remote.system_of("file://"), []
    fetch = system.get_file

    def failing(path, target):
        failures.append(path)
        if len(failures) % 3:
            raise ConnectionError("reset by peer")
        fetch(path, target)

    monkeypatch.setattr(system, "get_file", failing)
    here, _ = batches(stored, steps=3)
    assert equal(here, batches(f"file://{stored}", steps=3)[0]) and len(failures) > SHARDS
    monkeypatch.setattr(system, "get_file", lambda path, target: (_ for _ in ()).throw(ConnectionError("gone")))
    (paths,) = [expand(f"file://{stored}")]
    for path in paths:
        path.unlink(missing_ok=True)
    with pytest.raises(remote.RemoteError, match=r"cannot be fetched: ConnectionError: gone; the same command goes on"):
        batches(f"file://{stored}", steps=3)


def test_a_shard_that_a_worker_cannot_fetch_is_told_in_one_sentence(stored):
    loader = batches(stored, steps=1)[1]

    def arriving():
        yield from ()
        raise remote.RemoteError(
            "Caught RemoteError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
            "fgclip_fast.data.remote.RemoteError: shards: s3://a/0.tar cannot be fetched: gone; the same command"
        )

    with pytest.raises(OSError, match=r"^shards: s3://a/0\.tar cannot be fetched: gone; the same command$"):
        next(loader._counted(arriving(), 0))


def test_a_copy_that_breaks_off_is_not_kept(cache, stored, monkeypatch):
    system, _ = remote.system_of("file://")
    monkeypatch.setattr(system, "get_file", lambda path, target: Path(target).write_bytes(b"half"))
    with pytest.raises(remote.RemoteError, match=r"OSError: must have \d+ bytes, got 4"):
        index(expand(f"file://{stored}/0.tar")[0])
    assert copies(cache) == [] and not list(cache.rglob("*.partial"))


@pytest.mark.parametrize(
    "pattern, message",
    [("s3x://bucket/*.tar", r"shards: s3x:// cannot be read: Protocol not known"),
     ("file:///nowhere/at/all/*.tar", "shards: file:///nowhere/at/all/.* names no tar file"),
     ("file:///nowhere/0.tar", "shards: file:///nowhere/0.tar does not exist")],
)  # fmt: skip
def test_a_url_that_names_nothing_is_one_clear_error(cache, pattern, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        expand(pattern)


@pytest.mark.parametrize("missing, message", [("fsspec", r"needs fsspec: pip install 'fgclip_fast\[remote\]'"),
                                              ("s3fs", "shards: s3:// cannot be read: Install s3fs")])  # fmt: skip
def test_a_missing_package_is_named(cache, monkeypatch, missing, message):
    monkeypatch.setitem(sys.modules, missing, None)
    remote._filesystem.cache_clear()
    with pytest.raises(ValueError, match=message):
        expand("s3://bucket/*.tar")


@pytest.mark.parametrize("given", ["0", "many", "nan"])
def test_a_wrong_limit_is_refused(cache, stored, monkeypatch, given):
    monkeypatch.setenv("FGCLIP_CACHE_GB", given)
    with pytest.raises(ValueError, match=f"FGCLIP_CACHE_GB must be a number of gigabytes above 0, got '{given}'"):
        expand(f"file://{stored}")


def test_too_little_room_for_the_shards_of_a_window_is_told(cache, stored, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    allow(monkeypatch, stored, 3)
    batches(f"file://{stored}", steps=1)
    assert "4 shards are read together" in caplog.text


def test_processes_that_need_one_shard_fetch_it_once(cache, stored, tmp_path):
    path = expand(f"file://{stored}/0.tar")[0]
    code = f"from pathlib import Path; from fgclip_fast.data.index import index; index(Path({str(path)!r}))"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0] and copies(cache) == ["0.tar"]


def test_a_folder_that_cannot_hold_copies_ends_the_run(cache, stored, monkeypatch):
    path = expand(f"file://{stored}/0.tar")[0]
    monkeypatch.setattr(copying.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(95, "not supported")))
    with pytest.raises(remote.RemoteError, match=r"shards: .* cannot hold copies of remote shards: .*not supported"):
        index(path)
