"""Kill −9 at random moments: no image is lost, none is done twice, and the bytes are those of a run without a kill."""

import multiprocessing
import random
import time
from multiprocessing import forkserver

import pytest

pytest.importorskip("openai")

from fgclip_fast.curate.__main__ import main
from fgclip_fast.curate.places import stored_answers
from fgclip_fast.data.processes import main_left_out
from fgclip_fast.scenes.write import jpeg, scene_of
from tests.curate.shards import contents, records
from tests.curate.stub import Stub

KILLS, SCENES, CONCURRENCY = 30, 40, 4
MANY = 5  # answers that are sent to a storage together
RECIPE = """
source: photos
output: {output}
shard_size: 7
chat: {{model: stub, url: "{url}", concurrency: {concurrency}}}
stages:
  - captions: {{language: ''}}
  - phrases
  - regions: {{detector: {{url: "{url}", concurrency: {concurrency}}}}}
  - negatives: {{method: chat}}
  - filter: {{language: '', duplicates: false}}
"""


def command(arguments):
    """Run a command in a process of its own."""
    stored_answers.MANY = MANY
    main(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("at", ["", "file://{folder}/"], ids=["disk", "storage"])
def test_thirty_kills_lose_nothing_and_repeat_nothing(tmp_path, monkeypatch, at):
    monkeypatch.setenv("FGCLIP_CACHE", str(tmp_path / "cache"))
    forkserver._forkserver._stop()  # one of an earlier test has that test's environment
    (tmp_path / "photos").mkdir()
    for i in range(SCENES):
        (tmp_path / "photos" / f"{i:03}.jpg").write_bytes(jpeg(scene_of("train", i)))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fgclip_fast.curate.__main__"])
    rng = random.Random(0)
    with Stub(range(SCENES), delay=0.02) as stub:

        def started(name):
            path = tmp_path / f"{name}.yaml"
            output = f"{at.format(folder=tmp_path)}{name}" if name != "whole" else name
            path.write_text(RECIPE.format(output=output, url=stub.url, concurrency=CONCURRENCY))
            process = context.Process(target=command, args=(["run", str(path), "--workers", "1"],))
            with main_left_out():
                process.start()
            return process

        def kills_of(name, longest):
            """Run a recipe to its end, killed after each random time of ``longest`` seconds at most."""
            kills = 0
            while True:
                process = started(name)
                process.join(rng.uniform(0.1, longest))
                if process.exitcode is not None:
                    assert process.exitcode == 0
                    return kills
                process.kill()
                process.join()
                kills += 1

        start = time.monotonic()
        assert kills_of("whole", 1e6) == 0
        took = time.monotonic() - start
        once = stub.answered.copy()
        kills = round_ = 0
        while kills < KILLS:
            stub.answered.clear()
            name = f"killed-{round_}"
            mine = kills_of(name, took / 2)
            kills, round_ = kills + mine, round_ + 1
            for folder in sorted(path for path in (tmp_path / "whole").iterdir() if path.is_dir()):
                assert contents(folder) == contents(tmp_path / name / folder.name), folder.name
            sources = [fields["source"]["key"] for fields in records(tmp_path / name / "5-filter")]
            assert sources == [f"{i:03}" for i in range(SCENES)]
            # A request that is under way at a kill has to be asked again; nothing else is, on a disk.
            repeated = sum((stub.answered - once).values())
            print(f"{mine} kills; of {once.total()} questions {repeated} asked again", flush=True)
            assert set(stub.answered) == set(once) and repeated <= mine * (CONCURRENCY + (2 * MANY if at else 0))
