"""On a Ray cluster a stage writes the bytes that it writes on one machine."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

pytest.importorskip("openai")

from fgclip_fast.curate import Negatives, run
from fgclip_fast.curate.captions import Captions
from fgclip_fast.curate.cluster import Asking, Cluster, Computing, on_cluster
from fgclip_fast.curate.folder import OutputFolder
from fgclip_fast.curate.models.chat_model import Chat
from fgclip_fast.curate.phrases import Phrases
from fgclip_fast.curate.places.answers import FILE, Answer, Answers, key_of
from fgclip_fast.curate.recipe import read
from fgclip_fast.curate.running import known_digest
from fgclip_fast.curate.units import shards_of
from fgclip_fast.scenes.write import jpeg, scene_of
from tests.curate.shards import contents, records, region, write
from tests.curate.stub import Stub

KILLS, IN_A_RUN, SCENES, DELAY, CONCURRENCY, WORKERS = 30, 8, 40, 0.1, 4, 2
RECIPE = """
source: photos
output: {output}
shard_size: 7
chat: {{model: stub, url: "{url}", concurrency: {concurrency}}}
ray: {ray}
stages:
  - captions: {{language: ''}}
  - phrases
  - regions: {{detector: {{url: "{url}", concurrency: {concurrency}}}}}
  - negatives: {{method: chat}}
  - filter: {{language: ''}}
"""


@pytest.fixture
def units(tmp_path):
    for number in range(3):
        fields = [{"short_caption": f"a red mug {i}", "bbox_info": [region("a red mug")]} for i in range(number + 1)]
        write(tmp_path / "mine" / f"a-{number}.tar", *fields)
    return shards_of(sorted((tmp_path / "mine").glob("*.tar")))


def test_a_worker_writes_what_one_machine_writes(units, tmp_path):
    for stage in (Phrases(), Negatives()):
        run(stage, units, tmp_path / stage.name, workers=1)
        whole = contents(tmp_path / stage.name)
        (tmp_path / stage.name / "a-1.tar").unlink()
        folder = OutputFolder(tmp_path / stage.name, stage.name)
        counts = Computing(stage, folder, known_digest(folder), WORKERS)(units[1])
        assert contents(tmp_path / stage.name) == whole and counts["records"] == 2


def test_a_worker_keeps_its_session_from_shard_to_shard(stub, tmp_path):
    names = [write(tmp_path / f"a-{i}.tar", {}, {}, images=[stub.jpegs[2 * i], stub.jpegs[2 * i + 1]]) for i in (0, 1)]
    units = shards_of(names)
    stage = Captions(chat=Chat(model="stub", url=stub.url), language="")
    run(stage, units, tmp_path / "whole")
    folder = OutputFolder(tmp_path / "out", stage.name)
    folder.claim(units, stage.identity(), stage.settings(), False)
    work = Asking(stage, folder, False, WORKERS)
    counts = sum((work(unit) for unit in units), Counter())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert counts["shards"] == 2 and counts["records done"] == 4
    assert set(stub.answered.values()) == {2}  # once in each run


def test_a_usable_answer_is_not_replaced_by_that_of_another_process(tmp_path):
    one, other = (Answers(tmp_path / FILE, False, shared=True) for _ in range(2))
    key = key_of("question")
    assert one.get(key) is None and other.get(key) is None
    assert one.put(key, Answer("", "a fault")).fault == "a fault"
    assert other.put(key, Answer("first")).content == one.put(key, Answer("second")).content == "first"


def test_a_recipe_tells_where_each_stage_runs(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("source: a\noutput: b\nray: {workers: 8}\nstages: [phrases, regions: {ray: {workers: 2, gpus: 1}}]")
    recipe = read(path)
    assert recipe.clusters == (Cluster(workers=8), Cluster(workers=2, gpus=1.0)) and recipe.cluster.workers == 8
    path.write_text("source: a\noutput: b\nstages: [phrases: {ray: {gpu: 1}}]")
    with pytest.raises(ValueError, match=r"ray\.gpu is unknown: 'gpu'; the nearest is 'gpus'"):
        read(path)


def test_without_ray_the_message_says_how_to_install_it(units, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"curate phrases: ray.workers needs Ray .* pip install 'fgclip_fast\[ray\]'"):
        run(Phrases(), units, tmp_path / "out", cluster=Cluster(workers=2))


def failing(unit):
    """Work that one unit ends."""
    if unit.name == "a-1.tar":
        raise ValueError(f"{unit.name} is wrong")
    return Counter(shards=1)


@pytest.mark.slow
def test_two_workers_write_the_same_bytes_and_an_error_ends_the_run(units, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs ray: pip install 'fgclip_fast[ray]'")
    monkeypatch.setenv("FGCLIP_CACHE", str(tmp_path / "cache"))
    try:
        for number, stage in enumerate((Phrases(), Negatives())):
            (tmp_path / f"{number}").mkdir()
            monkeypatch.chdir(tmp_path / f"{number}")
            run(stage, units, tmp_path / stage.name, workers=1)
            for output, on_two in (Path("out"), Path("out")), (f"file://{tmp_path}/{number}/there", Path("there")):
                counts = run(stage, units, output, cluster=Cluster(workers=WORKERS, cpus=0.5))
                assert contents(on_two) == contents(tmp_path / stage.name) and counts["records"] == 6
        with pytest.raises(ValueError, match=r"^a-1\.tar is wrong$"):
            list(on_cluster(failing, units, Cluster(workers=WORKERS, cpus=0.5), "test"))
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_signal_ends_a_command_on_ray_as_any_other(tmp_path):
    """Without an address, also where a cluster of another user runs, which it must not join."""
    pytest.importorskip("ray", reason="needs ray: pip install 'fgclip_fast[ray]'")
    (tmp_path / "photos").mkdir()
    for i in range(SCENES):
        (tmp_path / "photos" / f"{i:03}.jpg").write_bytes(jpeg(scene_of("train", i)))
    with Stub(range(SCENES), delay=1) as stub, cluster_of_its_own() as (_, head):
        process = recipe(tmp_path, "mine", stub, "{workers: 2, cpus: 0.5}")
        while not stub.answered:
            assert process.poll() is None
            time.sleep(0.1)
        assert not children(head, ("ray::Map", "ray::_Map"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 128 + signal.SIGTERM, (tmp_path / "mine.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("at", ["", "file://{folder}/"], ids=["disk", "storage"])
def test_thirty_kills_lose_nothing_and_repeat_nothing(tmp_path, monkeypatch, at):
    """Of the command, or of a worker at work; their cluster stays."""
    pytest.importorskip("ray", reason="needs ray: pip install 'fgclip_fast[ray]'")
    monkeypatch.setenv("FGCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", uuid4().hex)
    at = at.format(folder=tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(SCENES):
        (tmp_path / "photos" / f"{i:03}.jpg").write_bytes(jpeg(scene_of("train", i)))
    rng = random.Random(0)
    with Stub(range(SCENES), delay=DELAY) as stub, cluster_of_its_own() as (ray, head):
        recipe(tmp_path, "whole", stub, "{}").communicate()
        once = stub.answered.copy()
        start = time.monotonic()
        assert recipe(tmp_path, "on-two", stub, ray, at).wait() == 0
        took = time.monotonic() - start
        print(f"\n{took:.0f} s without kills", flush=True)
        assert_same(tmp_path, "on-two")
        kills = Counter()
        while kills.total() < KILLS:
            stub.forget()
            stub.delay = DELAY
            name = f"killed-{kills.total()}"
            most = min(KILLS - kills.total(), IN_A_RUN)
            begin = partial(recipe, tmp_path, name, stub, ray, at)
            mine = killed_until_done(begin, head, most, rng, took / 2)
            kills += mine
            assert_same(tmp_path, name)
            repeated = sum((stub.answered - once).values())
            seconds = time.monotonic() - start
            print(f"{dict(kills)} killed in {seconds:.0f} s; of {once.total()} questions {repeated} again", flush=True)
            # A storage gets the answers later than a disk.
            assert set(stub.answered) == set(once) and (at or repeated <= mine.total() * WORKERS * CONCURRENCY)
        assert min(kills["command"], kills["worker"]) >= KILLS // 4


@contextmanager
def cluster_of_its_own():
    """A cluster on this machine that outlives the commands, so that a kill costs seconds: its settings, its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    head = ["--head", "--block", f"--port={port}", "--min-worker-port=0", "--max-worker-port=0", "--num-cpus=2"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*ray, "start", *head, "--include-dashboard=false"], start_new_session=True, **quiet)
    try:
        while subprocess.run([*ray, "status", f"--address=127.0.0.1:{port}"], check=False, **quiet).returncode:
            assert process.poll() is None, "the cluster does not start"
        yield f"{{workers: {WORKERS}, cpus: 0.5, address: '127.0.0.1:{port}'}}", process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def recipe(folder, name, stub, ray, at=""):
    """Start a recipe, in a process group of its own."""
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE.format(output=f"{at}{name}", url=stub.url, concurrency=CONCURRENCY, ray=ray))
    command = [sys.executable, "-m", "fgclip_fast.curate", "run", str(path), "--workers", "1"]
    with path.with_suffix(".log").open("ab") as told:
        return subprocess.Popen(command, start_new_session=True, stdout=told, stderr=told)


def killed_until_done(begin, head, most, rng, longest):
    """Run a recipe to its end, with kills at random moments; return how often the command and a worker were killed."""
    kills = Counter()
    process = begin()
    while True:
        try:
            patience = rng.uniform(0.1, longest) if kills.total() < most else None
            assert process.wait(patience) == 0, Path(process.args[4]).with_suffix(".log").read_text()
            return kills
        except subprocess.TimeoutExpired:
            workers = children(head, ("ray::Map", "ray::_Map"))
            if workers and kills["worker"] <= kills["command"]:
                os.kill(rng.choice(workers), signal.SIGKILL)
                kills["worker"] += 1
            else:
                process.kill()
                process.wait()
                process = begin()
                kills["command"] += 1


def children(pid, titles):
    """The processes below one whose command begins like one of these."""
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        below = [int(task) for path in Path(f"/proc/{parent}/task").glob("*/children") for task in read_words(path)]
        waiting += below
        found += [child for child in below if " ".join(read_words(Path(f"/proc/{child}/cmdline"))).startswith(titles)]
    return found


def read_words(path):
    try:
        return path.read_text().replace("\0", " ").split()
    except OSError:  # the process has ended
        return []


def assert_same(folder, name):
    """All shards are those of one machine, and each image is there once."""
    for whole in sorted(path for path in (folder / "whole").iterdir() if path.is_dir()):
        assert contents(whole) == contents(folder / name / whole.name), whole.name
    sources = [fields["source"]["key"] for fields in records(folder / name / "5-filter")]
    assert sources == [f"{i:03}" for i in range(SCENES)]
