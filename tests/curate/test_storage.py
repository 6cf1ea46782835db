"""A stage whose output lies in object storage writes the bytes that it writes on disk, however it stops and goes on."""

import json
import pickle
from collections import Counter
from contextlib import suppress
from multiprocessing import forkserver

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("openai")

import fsspec

from fgclip_fast.curate import Negatives, run
from fgclip_fast.curate.__main__ import main
from fgclip_fast.curate.captions import Captions
from fgclip_fast.curate.cluster import Asking
from fgclip_fast.curate.finished import Shards
from fgclip_fast.curate.folder import OutputFolder, place_of
from fgclip_fast.curate.models.chat_model import Chat
from fgclip_fast.curate.phrases import Phrases
from fgclip_fast.curate.places import stored_answers
from fgclip_fast.curate.units import shards_of
from fgclip_fast.data import remote, tries
from fgclip_fast.data.file_order import examples
from fgclip_fast.data.shards import Shard, expand
from fgclip_fast.scenes.write import jpeg as drawn, scene_of
from tests import s3
from tests.curate.shards import contents, jpeg, region, write

URL = "memory://bucket/mine"
COLOURS = ("red", "green", "blue", "white", "black", "yellow")


@pytest.fixture(autouse=True)
def storage(tmp_path, monkeypatch):
    """An object storage in memory, empty; failures are tried again at once."""
    monkeypatch.setenv("FGCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tries, "_WAIT", 0.0)
    remote._beside.cache_clear()
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    return system


@pytest.fixture
def units(tmp_path):
    for number in range(3):
        fields = [{"short_caption": f"a red mug {i}", "bbox_info": [region("a red mug")]} for i in range(number + 1)]
        write(tmp_path / "mine" / f"a-{number}.tar", *fields)
    return shards_of(expand(str(tmp_path / "mine")))


@pytest.fixture
def images(stub, tmp_path):
    """Two shards of two images that the stub knows."""
    names = [
        write(tmp_path / f"a-{i}.tar", {}, {}, images=[stub.jpegs[2 * i], stub.jpegs[2 * i + 1]]) for i in range(2)
    ]
    return shards_of(names)


def stored(storage, url):
    """Name → bytes of the shards of a folder."""
    path = storage._strip_protocol(url)
    return {name.rpartition("/")[2]: storage.cat_file(name) for name in sorted(storage.glob(f"{path}/*.tar"))}


def captions(stub, **settings):
    return Captions(chat=Chat(model="stub", url=stub.url, **settings), language="")


class Killed(BaseException):
    """Ends a run as a kill does: nothing catches it."""


@pytest.fixture
def killing(storage, monkeypatch):
    """Sets after how many more files that are sent a run is killed; None: never."""
    put, left = type(storage).put_file, [None]

    def counted(self, path, target, **options):
        if left[0] == 0:
            raise Killed
        put(self, path, target, **options)
        left[0] = None if left[0] is None else left[0] - 1

    monkeypatch.setattr(type(storage), "put_file", counted)
    return lambda files: left.__setitem__(0, files)


@pytest.mark.parametrize("stage", [Phrases(), Negatives()], ids=lambda stage: stage.name)
def test_the_bytes_are_those_on_disk_and_nothing_is_left_on_this_machine(storage, units, tmp_path, stage):
    here = run(stage, units, tmp_path / "out", workers=1)
    there = run(stage, units, URL, workers=1)
    assert stored(storage, URL) == contents(tmp_path / "out") and there == here
    tables = [path for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert [storage.cat_file(f"/bucket/mine/{path.name}") for path in tables] == [path.read_bytes() for path in tables]
    assert json.loads(storage.cat_file(f"/bucket/mine/{stage.name}.json"))["counts"] == dict(sorted(here.items()))
    assert not list((tmp_path / "cache" / "outgoing").iterdir())


@pytest.mark.parametrize("stage", [Phrases(), Negatives()], ids=lambda stage: stage.name)
def test_a_kill_after_each_file_that_is_sent_changes_no_byte(storage, units, tmp_path, killing, stage):
    run(stage, units, tmp_path / "out", workers=1)
    kills = 0
    while True:
        killing(kills)
        with suppress(Killed):
            run(stage, units, f"{URL}-{kills}", workers=1)
            break
        killing(None)
        before = {name: storage.info(f"/bucket/mine-{kills}/{name}")["created"] for name in finished(storage, kills)}
        run(stage, units, f"{URL}-{kills}", workers=1)
        assert stored(storage, f"{URL}-{kills}") == contents(tmp_path / "out")
        assert before == {name: storage.info(f"/bucket/mine-{kills}/{name}")["created"] for name in before}
        kills += 1
    assert kills > 3 * len(units)  # a shard, its table and its outcome


def finished(storage, number):
    """Shards that have an outcome."""
    names = storage.glob(f"/bucket/mine-{number}/_*/a-*.tar.json")
    return [name.rpartition("/")[2].removesuffix(".json") for name in names]


def test_what_is_done_is_not_done_again_unless_its_source_or_the_shard_has_changed(storage, units, tmp_path):
    run(Phrases(), units, URL, workers=1)
    first = {name: storage.info(f"/bucket/mine/{name}")["created"] for name in stored(storage, URL)}
    write(tmp_path / "mine" / "a-1.tar", {"short_caption": "a blue cup"})
    storage.pipe_file("/bucket/mine/a-2.tar", b"another")
    counts = run(Phrases(), units, URL, workers=1)
    again = {name: storage.info(f"/bucket/mine/{name}")["created"] for name in first}
    assert [name for name in first if first[name] != again[name]] == ["a-1.tar", "a-2.tar"]
    assert counts["records"] == 5 and len(stored(storage, URL)["a-2.tar"]) > 1000
    with pytest.raises(ValueError, match=r"memory://bucket/mine holds the output of other .* \(most\); choose another"):
        run(Phrases(most=3), units, URL, workers=1)


def test_a_folder_with_other_shards_is_refused_and_two_processes_of_one_machine_are(storage, units):
    storage.pipe_file("/bucket/other/a.tar", b"a shard")
    with pytest.raises(ValueError, match="--output must hold no shards, got memory://bucket/other; choose another"):
        run(Phrases(), units, "memory://bucket/other/", workers=1)
    with pytest.raises(ValueError, match="--output must hold no shards, got memory://bucket/other; choose another"):
        Shards().write([unit.path for unit in units], "memory://bucket/other", workers=1)
    with place_of(URL).alone("_phrases"), pytest.raises(ValueError, match=f"another process works in {URL} now"):
        run(Phrases(), units, URL, workers=1)


def test_negatives_may_replace_their_source(storage, units, tmp_path):
    run(Negatives(), units, tmp_path / "out", workers=1)
    for unit in units:
        storage.put_file(str(unit.path), f"/bucket/mine/{unit.name}")
    for _ in range(2):
        run(Negatives(), shards_of(expand(URL)), URL, workers=1)
        assert stored(storage, URL) == contents(tmp_path / "out")
    with pytest.raises(ValueError, match="--output must be another folder than that of the shards"):
        run(Phrases(), shards_of(expand(URL)), URL, workers=1)


def test_the_next_stage_reads_a_shard_that_was_written_again(storage, units, tmp_path):
    run(Phrases(), units, URL, workers=1)
    run(Negatives(), shards_of(expand(URL)), f"{URL}-2", workers=1)
    write(tmp_path / "mine" / "a-1.tar", {"short_caption": "a cup", "bbox_info": [region("a blue cup")]})
    run(Phrases(), units, URL, workers=1)
    run(Negatives(), shards_of(expand(URL)), f"{URL}-2", workers=1)
    run(Phrases(), units, tmp_path / "1", workers=1)
    run(Negatives(), shards_of(expand(str(tmp_path / "1"))), tmp_path / "2", workers=1)
    assert stored(storage, f"{URL}-2") == contents(tmp_path / "2")


def test_a_worker_of_another_machine_makes_its_own_copy(storage, units, tmp_path, monkeypatch):
    run(Phrases(), units, URL, workers=1)
    sent = pickle.dumps(shards_of(expand(URL)))
    assert not list((tmp_path / "cache").rglob("*.tar"))  # who lists them copies none
    monkeypatch.setenv("FGCLIP_CACHE", str(tmp_path / "another"))
    there = pickle.loads(sent)
    assert [len([*unit.samples()]) for unit in there] == [1, 2, 3] and not any(unit.damaged() for unit in there)
    assert len(list((tmp_path / "another").rglob("*.tar"))) == 3


def test_answers_are_kept_often_and_a_kill_repeats_only_the_last_ones(storage, stub, images, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_answers, "MANY", 1)
    run(captions(stub), images, tmp_path / "out")
    stub.forget()
    with monkeypatch.context() as patch:
        # Killed with the last answer of the first shard: one is stored, and none at the end.
        patch.setattr(stored_answers.StoredAnswers, "end", lambda *_: (_ for _ in ()).throw(Killed))
        patch.setattr(stored_answers.StoredAnswers, "save", lambda _: None)
        with pytest.raises(Killed):
            run(captions(stub, concurrency=1), images, URL)
    kept = json.loads(storage.cat_file("/bucket/mine/_captions/answers/a-0.tar.json"))
    assert 1 <= len(kept) <= 2
    run(captions(stub, concurrency=1), images, URL)
    assert stored(storage, URL) == contents(tmp_path / "out")
    assert sum(stub.answered.values()) <= 4 + 2 and sum(n > 1 for n in stub.answered.values()) <= 2


def test_answers_are_kept_at_a_failure_and_of_the_shards_that_are_done(storage, stub, images, monkeypatch):
    answered = Captions.answered

    async def failing(self, model, item):
        if item.place == "a-1.tar/0001":
            raise OSError("the server is down")
        return await answered(self, model, item)

    with monkeypatch.context() as patch:
        patch.setattr(Captions, "answered", failing)
        with pytest.raises(OSError, match="the server is down"):
            run(captions(stub, concurrency=1), images, URL)
    run(captions(stub), images, URL)
    assert set(stub.answered.values()) == {1} and len(stub.answered) == 4
    for name in stored(storage, URL):
        storage.rm_file(f"/bucket/mine/{name}")
    run(captions(stub), images, URL)
    assert set(stub.answered.values()) == {1}


def test_faults_are_asked_for_again_if_wished(storage, stub, images):
    stub.trouble = lambda number, name: "empty" if name == stub.images[1] else ""
    counts = run(captions(stub, asks=1), images, URL)
    assert counts["records failed"] == 1
    stub.trouble = lambda number, name: ""
    assert run(captions(stub, asks=1), images, URL)["records failed"] == 1
    assert not run(captions(stub, asks=1), images, URL, retry_failed=True)["records failed"]
    assert sorted(stub.answered.values()) == [1, 1, 1, 2]


def test_answers_are_sent_after_a_while(storage, stub, images, monkeypatch):
    monkeypatch.setattr(stored_answers, "OFTEN", 0.05)
    monkeypatch.setattr(stored_answers.StoredAnswers, "end", lambda *_: None)
    monkeypatch.setattr(stored_answers.StoredAnswers, "save", lambda *_: None)
    stub.delay = 0.2
    run(captions(stub, concurrency=1), images, URL)
    assert json.loads(storage.cat_file("/bucket/mine/_captions/answers/a-0.tar.json"))


def test_a_worker_keeps_its_session_from_shard_to_shard(storage, stub, images, tmp_path):
    run(captions(stub), images, tmp_path / "out")
    folder = OutputFolder(URL, "captions")
    folder.claim(images, captions(stub).identity(), captions(stub).settings(), False)
    work = pickle.loads(pickle.dumps(Asking(captions(stub), folder, False, 2)))
    counts = sum((work(unit) for unit in images), Counter())
    assert stored(storage, URL) == contents(tmp_path / "out") and counts["records done"] == 4
    assert set(stub.answered.values()) == {2}


@pytest.mark.parametrize("error, tried", [(PermissionError("access denied"), 1), (ConnectionError("reset"), 6)])
def test_a_storage_that_cannot_be_written_or_read_is_one_clear_error(storage, units, monkeypatch, error, tried):
    calls = []

    def failing(*_, **__):
        calls.append(1)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(type(storage), "put_file", failing)
        match = (
            rf"^{URL}/_phrases/settings\.json cannot be written: {type(error).__name__}: .*the same command goes on$"
        )
        with pytest.raises(OSError, match=match):
            run(Phrases(), units, URL, workers=1)
    assert len(calls) == tried
    monkeypatch.setattr(type(storage), "cat_file", failing)
    match = rf"^{URL} cannot be read: {type(error).__name__}: .*; the same command goes on$"
    with pytest.raises(OSError, match=match):
        run(Phrases(), units, URL, workers=1)


def test_what_arrives_with_another_size_is_an_error(storage, units, monkeypatch):
    monkeypatch.setattr(type(storage), "put_file", lambda self, path, target, **_: self.pipe_file(target, b"half"))
    with pytest.raises(OSError, match=r"settings\.json cannot be written: OSError: must have \d+ bytes, got 4"):
        run(Phrases(), units, URL, workers=1)


def test_training_shards_and_their_indexes_are_sent_once_and_training_reads_them(storage, tmp_path, killing):
    pictures = [jpeg((40 * i, 250 - 40 * i, 30 * i % 99)) for i in range(6)]
    fields = [{"short_caption": f"a {name} mug", "bbox_info": [region(f"a {name} mug")]} for name in COLOURS]
    storage.put_file(str(write(tmp_path / "a.tar", *fields, images=pictures)), "/bucket/1/a.tar")
    stage = Shards(shard_size=2)
    stage.write([tmp_path / "a.tar"], tmp_path / "out", workers=1)
    kills = 0
    while True:  # after each file that is sent
        killing(kills)
        with suppress(Killed):
            stage.write(expand("memory://bucket/1"), f"{URL}-{kills}", workers=1)
            break
        killing(None)
        stage.write(expand("memory://bucket/1"), f"{URL}-{kills}", workers=1)
        there = stored(storage, f"{URL}-{kills}")
        assert there == contents(tmp_path / "out") and len(there) == 3
        kills += 1
    names = {name.rpartition("/")[2] for name in storage.ls(f"/bucket/mine-{kills}", detail=False)}
    assert names == {".import", "import.json", "refused.csv", *there, *(f"{name}.index" for name in there)}
    assert kills == 1 + 2 * 3 + 2
    texts = [example.short for example in examples(f"{URL}-{kills}", image_size=8)]
    assert all(text.endswith(f"a {name} mug") for text, name in zip(texts, COLOURS, strict=True))
    killing(0)  # nothing is sent
    assert stage.write(expand("memory://bucket/1"), f"{URL}-{kills}", workers=1)["records in train"] == 6
    assert not list((tmp_path / "cache" / "curate").rglob("train-*"))
    with pytest.raises(ValueError, match=rf"{URL}-{kills} holds shards of other records or settings; delete it"):
        Shards(shard_size=3).write(expand("memory://bucket/1"), f"{URL}-{kills}", workers=1)


RECIPE = """
source: photos
output: {output}
shard_size: 5
chat: {{model: stub, url: "{url}"}}
stages:
  - captions: {{language: ''}}
  - phrases
  - regions: {{detector: {{url: "{url}"}}}}
  - negatives
  - filter: {{language: ''}}
  - shards: {{val: 0.2}}
"""


def check_recipe(system, url, stub, tmp_path, workers):
    """A recipe writes to a storage what it writes to a disk."""
    (tmp_path / "photos").mkdir()
    for number in range(8):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(drawn(scene_of("train", number)))
    for output in ("mine", url, url):
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE.format(output=output, url=stub.url))
        main(["run", str(path), "--workers", workers])
    assert set(stub.answered.values()) <= {2, 4}  # a phrase may name two things of an image
    system.invalidate_cache()
    folders = sorted(folder for folder in (tmp_path / "mine").iterdir() if folder.is_dir())
    assert len(folders) == 7
    for folder in folders:
        assert stored(system, f"{url}/{folder.name}") == contents(folder), folder.name
    assert b"Agree or disagree: 8 records" in system.cat_file(f"{url}/curation.html")


def test_a_recipe_runs_to_its_end_and_the_page_lies_beside(storage, stub, tmp_path, capsys):
    check_recipe(storage, URL, stub, tmp_path, "1")
    assert f"{URL}/curation.html shows" in capsys.readouterr().out
    main(["report", URL, "--output", str(tmp_path / "page.html"), "--workers", "1"])
    assert (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_a_recipe_writes_to_s3(stub, tmp_path, monkeypatch):
    with s3.served(monkeypatch) as system:
        forkserver._forkserver._stop()  # one of an earlier test has that test's environment
        check_recipe(system, "s3://bucket/mine", stub, tmp_path, "2")
        message = r"s3://none/1/_phrases/settings\.json cannot be written: FileNotFoundError"
        with pytest.raises(SystemExit, match=message):
            main(["phrases", "s3://bucket/mine/1-captions", "--output", "s3://none/1"])
        assert not system.exists("none")


def test_a_disk_behind_a_url_shows_whole_files_only(units, tmp_path, monkeypatch):
    url = f"file://{tmp_path}/there"
    run(Phrases(), units, tmp_path / "out", workers=1)
    seen = []
    system, _ = remote.system_of(url)
    move = system.mv
    monkeypatch.setattr(system, "mv", lambda *names: (seen.append(contents(tmp_path / "there")), move(*names)))
    run(Phrases(), units, url, workers=2)
    whole = contents(tmp_path / "out")
    assert contents(tmp_path / "there") == whole
    assert seen and all(whole[name] == content for shown in seen for name, content in shown.items())
    assert len(Shard(expand(url)[2])) == 3
