"""Going on with a run: where it lies, with what changed told or refused, whatever was damaged."""

import json
import shutil
import time
from dataclasses import replace

import pytest
import torch

from fgclip_fast import command_line, suites
from fgclip_fast.config import Config, Data, Loss, Optim, yaml_file
from fgclip_fast.run.folder import Lock
from fgclip_fast.train import train
from fgclip_fast.training import checkpoint, optim
from fgclip_fast.training.best import Best
from tests.models import MINI


@pytest.fixture(scope="module")
def begun(shards, tmp_path_factory):
    """A run of two steps, with the shards beside it; tests copy the folder."""
    folder = tmp_path_factory.mktemp("begun")
    for shard in sorted(shards.glob("train-*.tar"))[:2]:
        shutil.copy(shard, folder)
    train(config_of(folder, steps=2))
    return folder


@pytest.fixture
def copied(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def config_of(folder, **more):
    data = Data(train=str(folder / "train-*.tar"), val="", workers=0, window=2)
    settings = dict(optim=Optim(lr=3e-3, warmup=0), batch_size=4, steps=3, device="cpu", threads=1)
    return Config(model=MINI, data=data, output=str(folder / "run"), checkpoint_every=1, **{**settings, **more})


def steps(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if line["kind"] == "train"]


def test_a_copied_run_goes_on_where_it_lies(begun, copied):
    before = sorted(path.name for path in (begun / "run" / "checkpoints").iterdir())
    for words in (["--resume", str(copied / "run")], ["--config", str(copied / "run/config.yaml"), "--resume", "auto"]):
        config = command_line.parse([*words, "--steps", "3"])
        assert config.output == str(copied / "run")
    moved = command_line.parse(["--resume", str(copied / "run" / "checkpoints" / "step-00000002"), "--steps", "3"])
    run = train(moved)
    assert run.path == copied / "run" and steps(run.path) == [1, 2, 3]
    assert sorted(path.name for path in (begun / "run" / "checkpoints").iterdir()) == before


def test_what_the_command_line_changes_is_told_and_holds(copied, caplog):
    caplog.set_level("INFO", "fgclip_fast")
    changed = config_of(copied, loss=Loss(region=0.0, hard_negative=0.25), optim=Optim(lr=1e-5, warmup=0, text_lr=1e-6))
    # With one checkpoint kept, that which the run went on from is gone before its end.
    run = train(replace(changed, resume="auto", steps=4, keep=1, micro_batch_size=3))
    said = ("loss.region was 0.1, is 0.0", "loss.hard_negative was 0.5, is 0.25", "optim.lr was 0.003, is 1e-05",
            "optim.text_lr was None, is 1e-06", "steps was 2, is 4", "keep was 2, is 1")  # fmt: skip
    assert all(f"resume: {line}" in caplog.text for line in said)
    assert "micro_batch_size was None, is 3: the samples are the same, the last digits of the losses" in caplog.text
    assert caplog.text.count(" was ") == len(said) + 1
    lines = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert all(line["lr"] <= 1e-5 for line in lines if line["kind"] == "train" and line["step"] > 2)
    saved = checkpoint.newest_sound(run.path)
    assert saved.name == "step-00000004" and (saved / "model" / "merges.txt").is_file()
    assert yaml_file.load(saved / "config.yaml").optim.lr == 1e-5


@pytest.mark.parametrize("cut", ["the validation", "the best checkpoint"])
def test_a_validation_that_a_kill_cuts_is_done_anew(shards, tmp_path, monkeypatch, cut):
    """Its checkpoint is saved, and its figures are not; or they are, and the best checkpoint is not."""

    def config(name):
        data = Data(train=str(shards / "train-*.tar"), val=str(shards / "val-*.tar"), workers=0, window=2)
        more = replace(config_of(tmp_path, steps=3), output=str(tmp_path / name), resume="auto", data=data)
        return replace(more, eval_every=1, keep_best="loss_total")

    def lines(name):
        read = map(json.loads, (tmp_path / name / "log.jsonl").read_text().splitlines())
        return [line for line in read if line["kind"] == "validation"]

    train(config("whole"))
    owner, name = (suites, "evaluate") if cut == "the validation" else (Best, "improved")
    real, calls = getattr(owner, name), []

    def killed(*arguments, **more):
        calls.append(name)
        while len(calls) == 2 and not checkpoint.at(tmp_path / "cut", 2).exists():
            time.sleep(0.01)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, name, killed)
        train(config("cut"))
    assert checkpoint.step_of(checkpoint.newest(tmp_path / "cut")) == 2
    train(config("cut"))
    assert len(lines("cut")) == 2 and lines("cut") == lines("whole")
    best = [json.loads((tmp_path / name / "best" / "best.json").read_text()) for name in ("cut", "whole")]
    assert best[0] == best[1]


@pytest.mark.parametrize("change", ["one more", "one gone", "another order", "another content"])
def test_other_shards_are_refused(copied, change):
    first, second = sorted(copied.glob("train-*.tar"))
    if change == "one more":
        shutil.copy(first, copied / "train-99999.tar")
    elif change == "one gone":
        second.unlink()
    elif change == "another order":
        first.rename(copied / "train-00009.tar")
    else:
        first.write_bytes(first.read_bytes() + b"\0" * 512)
    with pytest.raises(ValueError, match=r"resume: the content of data.train was .* and is .*; the run would not see"):
        train(config_of(copied, resume="auto"))


def test_shards_that_were_moved_are_the_same(copied, tmp_path):
    for shard in copied.glob("train-*.tar"):
        (tmp_path / "moved").mkdir(exist_ok=True)
        shard.rename(tmp_path / "moved" / shard.name)
    config = config_of(copied, resume="auto")
    moved = replace(config.data, train=str(tmp_path / "moved"))
    assert steps(train(replace(config, data=moved)).path) == [1, 2, 3]


def test_a_damaged_newest_checkpoint_is_told_and_the_run_goes_on_from_the_one_before(copied, caplog):
    bad = checkpoint.at(copied / "run", 2) / "state.safetensors"
    content = bytearray(bad.read_bytes())
    content[-1] ^= 1
    bad.write_bytes(content)
    (copied / "run" / "checkpoints" / ".step-00000003.partial").write_bytes(b"left by a kill")
    run = train(config_of(copied, resume="auto"))
    assert f"{bad} has other bytes than were written; the checkpoint before it is used" in caplog.text
    assert steps(run.path) == [1, 2, 3]
    names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert names == ["aside-step-00000002", "step-00000002", "step-00000003"]


def test_a_folder_in_use_is_refused(copied):
    with Lock() as lock:
        lock.take(copied / "run")
        with pytest.raises(ValueError, match=r"output: .*run is in use by process \d+ on .* since 2.*; end that"):
            train(config_of(copied, resume="auto"))


def test_a_run_without_finite_gradients_stops_with_its_checkpoint_and_its_records(copied, monkeypatch):
    def broken(model, optimizer, config):
        optimizer.zero_grad(set_to_none=True)
        return torch.tensor(float("nan")), torch.tensor(1.0)

    monkeypatch.setattr(optim, "update", broken)
    with pytest.raises(
        ValueError, match=r"2 steps in a row without a finite gradient, up to step 4; the newest "
    ) as told:
        train(config_of(copied, resume="auto", steps=9, max_skipped=2))
    assert "records of the last step: train-0000" in str(told.value)
    assert steps(copied / "run") == [1, 2, 3, 4, 5]
