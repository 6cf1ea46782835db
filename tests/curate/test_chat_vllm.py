"""vLLM in this process answers as a server does; test_real_vllm.py runs vLLM itself."""

import sys
from collections import Counter

import pytest

from fgclip_fast.curate import run, texts
from fgclip_fast.curate.__main__ import main
from fgclip_fast.curate.captions import Captions
from fgclip_fast.curate.cluster import Asking
from fgclip_fast.curate.folder import OutputFolder
from fgclip_fast.curate.models.chat import CUT
from fgclip_fast.curate.models.chat_model import Chat, Vllm
from fgclip_fast.curate.models.endpoint import REFUSED
from fgclip_fast.curate.recipe import read
from fgclip_fast.curate.units import shards_of
from tests.curate import fake_vllm
from tests.curate.shards import contents, region, write


@pytest.fixture
def engine(monkeypatch, stub):
    """vLLM's engine, played by the stub."""
    return fake_vllm.install(monkeypatch, stub)


@pytest.fixture
def units(stub, tmp_path):
    """Two shards of scenes without texts."""
    for shard in range(2):
        images = [*stub.jpegs.values()][4 * shard : 4 * shard + 4]
        write(tmp_path / "mine" / f"a-{shard}.tar", *[{}] * 4, images=images)
    return shards_of(sorted((tmp_path / "mine").glob("*.tar")))


def captions(**settings):
    chat = {"model": "stub", "engine": "vllm", "concurrency": 3, "asks": 2} | settings
    return Captions(chat=Chat(**chat), language="")


def test_it_writes_the_bytes_that_a_server_writes(engine, stub, units, tmp_path):
    pytest.importorskip("openai")
    troubles = ["broken", "empty", "refusal", "loop"]
    seen = {}

    def at_first(number, question):
        return troubles.pop() if troubles and seen.setdefault(question, number) == number else ""

    stub.trouble = at_first
    here = run(captions(), units, tmp_path / "here")
    assert not troubles and not engine.opened
    stub.forget()
    server = run(captions(engine="server", url=stub.url), units, tmp_path / "server")
    assert contents(tmp_path / "here") == contents(tmp_path / "server")
    assert here["requests"] == 12 and here["tokens in"] == 1200 and server["tokens in"] == 800


def test_faults_that_stay_are_those_of_a_server(engine, stub, units, tmp_path):
    causes = {"broken": CUT, "empty": texts.EMPTY, "refusal": texts.REFUSAL, "500": REFUSED}
    bad = dict(zip(sorted(stub.images), causes, strict=False))
    stub.trouble = lambda number, question: bad.get(question, "")
    counts = run(captions(), units, tmp_path / "out")
    failed = {cause: counts[f"records failed: {cause}"] for cause in causes.values()}
    assert sum(failed.values()) == counts["records failed"] and set(failed.values()) <= {0, 1}
    assert counts["records failed"] == len(bad.keys() & {*stub.images[:8]})
    stub.forget()
    assert not run(captions(), units, tmp_path / "out", retry_failed=True)["records failed"]


def test_settings_reach_the_engine_and_each_request(engine, stub, units, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(engine, "shutdown", lambda self, timeout: seen.append(self))
    stub.trouble = lambda number, question: "empty"
    settings = Vllm(max_model_len=4096, tensor_parallel_size=2, more='{"max_num_seqs": 8, "limit_mm_per_prompt": {}}')
    run(captions(vllm=settings, max_tokens=77), units[:1], tmp_path / "out")
    (one,) = seen
    assert vars(one.arguments) == {
        "model": "stub", "max_model_len": 4096, "tensor_parallel_size": 2, "max_num_seqs": 8,
        "limit_mm_per_prompt": {}, "disable_log_stats": True,
    }  # fmt: skip
    assert Counter(sampling.seed for sampling in one.sampled) == {0: 4, 1: 4}
    assert {(s.temperature, s.top_p, s.max_tokens) for s in one.sampled} == {(0.0, 0.9, 77)}
    assert all("caption" in s.structured_outputs.json["properties"] for s in one.sampled)


def test_a_worker_keeps_its_engine_from_shard_to_shard(engine, units, tmp_path):
    stage = captions()
    run(stage, units, tmp_path / "whole")
    folder = OutputFolder(tmp_path / "out", stage.name)
    folder.claim(units, stage.identity(), stage.settings(), False)
    work = Asking(stage, folder, False, 2)
    counts = sum((work(unit) for unit in units), Counter())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole") and counts["records done"] == 8
    assert len(engine.opened) == 1
    work._loop.run_until_complete(work._session.__aexit__(None, None, None))
    assert not engine.opened


def test_an_engine_that_dies_ends_the_run_and_loses_no_answer(engine, stub, units, tmp_path, monkeypatch):
    stage = captions(concurrency=1)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "dies_at", 6)
        with pytest.raises(OSError, match=r"vLLM's engine has died: EngineCore .*; the same command goes on"):
            run(stage, units, tmp_path / "out")
    assert not engine.opened and [*contents(tmp_path / "out")] == ["a-0.tar"]
    assert run(stage, units, tmp_path / "out")["captions"] == 8
    assert set(stub.answered.values()) == {1}


def test_a_model_that_cannot_be_loaded_is_one_line_with_the_cause(engine, units, tmp_path, monkeypatch, capfd):
    with pytest.raises(ValueError) as error:
        run(captions(model="nowhere"), units, tmp_path / "out")
    cause = "Engine core initialization failed. (ValueError: no such weights)"
    assert str(error.value) == f"curate: vLLM cannot load chat.model 'nowhere': {cause}"
    out, err = capfd.readouterr()
    assert not out and "EngineCore" in err
    with pytest.raises(ValueError, match=r"chat\.model must name the model to load, got ''"):
        run(captions(model=""), units, tmp_path / "none")
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match=r"needs vLLM \(vllm is missing\); pip install 'fgclip_fast\[vllm\]'"):
        run(captions(), units, tmp_path / "missing")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"engine": "vllm", "url": "http://a/v1"}, "chat.url must not be given with chat.engine vllm, got http://a/v1"),
        ({"vllm": Vllm(dtype="float16")}, "chat.vllm is of --chat.engine vllm, got chat.engine server"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Chat(model="a", **settings)


@pytest.mark.parametrize(
    "more, message",
    [
        ("max_num_seqs=8", "more must be JSON, got 'max_num_seqs=8'"),
        ("[1]", r"must be a JSON object .*, got '\[1\]'"),
        ('{"dtype": "half"}', "other than max_model_len, .*, got 'dtype'"),
    ],
)
def test_other_arguments_of_the_engine_are_a_json_object(more, message):
    with pytest.raises(ValueError, match=message):
        Vllm(more=more)


def test_answers_depend_on_the_weights_and_not_on_the_gpus():
    one = Chat(model="a", engine="vllm").identity()
    assert (
        Chat(model="a", engine="vllm", vllm=Vllm(tensor_parallel_size=8, gpu_memory_utilization=0.5)).identity() == one
    )
    others = (Vllm(quantization="fp8"), Vllm(dtype="float16"), Vllm(more='{"seed": 1}'))
    assert all(Chat(model="a", engine="vllm", vllm=other).identity() != one for other in others)
    assert "vllm" not in Chat(model="a").identity()  # the keys of older answers stay


def test_the_command_and_a_recipe_name_the_engine(engine, units, tmp_path, capsys):
    chat = ["--chat.engine", "vllm", "--chat.model", "stub", "--chat.vllm.max-model-len", "4096"]
    main(["captions", str(tmp_path / "mine"), "--output", str(tmp_path / "c"), "--language", "", *chat])
    assert "8 of 8 records" in capsys.readouterr().out
    write(tmp_path / "regions" / "a.tar", {"bbox_info": [region("a large red mug")]})
    main(["negatives", str(tmp_path / "regions"), "--method", "chat", "--output", str(tmp_path / "n"), *chat])
    assert "1  regions with new negatives" in capsys.readouterr().out
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("source: a\noutput: b\nchat: {engine: vllm, vllm: {dtype: half}}\nstages: [captions]")
    (stage,) = read(recipe).stages
    assert isinstance(stage, Captions) and stage.chat.vllm == Vllm(dtype="half")
    recipe.write_text("source: a\noutput: b\nchat: {engine: vllm, vllm: {tensor_parallel: 2}}\nstages: [captions]")
    with pytest.raises(ValueError, match=r"tensor_parallel'; the nearest is 'tensor_parallel_size'"):
        read(recipe)
