"""Signals in commands other than training: one line, a status, no half-written file; the same command goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from fgclip_fast import command, evaluate
from fgclip_fast.curate.__main__ import main as curate
from fgclip_fast.data.__main__ import main as data
from fgclip_fast.data.shards import ShardWriter
from fgclip_fast.evaluation.share import Share
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.process.signals import SIGNALS
from tests.models import MINI

GOES_ON = "interrupted; the same command goes on from here"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_with_a_line_and_its_status(number, capsys):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, command.frame("embed"):
        os.kill(os.getpid(), number)
        pytest.fail("the command went on")
    assert ended.value.code == 128 + number and signal.getsignal(number) is before
    assert capsys.readouterr().err == "embed: interrupted; what was saved before is whole\n"


def test_a_repeated_sigterm_does_not_disturb_the_end(capsys):
    with pytest.raises(SystemExit) as ended, command.frame("embed"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            print("cleaned")
    assert ended.value.code == 128 + signal.SIGTERM and capsys.readouterr().out == "cleaned\n"


def test_a_hang_up_that_nohup_keeps_away_ends_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with command.frame("embed"):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


WAITING = """
import os
from fgclip_fast import command
from fgclip_fast.data.processes import in_order
with command.frame("curate"):
    list(in_order(os.system, [("echo > begun; sleep 600",)] * 2, 2, "curate"))
"""


def test_a_second_ctrl_c_ends_at_once_though_workers_are_at_work(tmp_path):
    """After the first one the task at hand is waited for; here it takes ten minutes."""
    words, paths = [sys.executable, "-c", WAITING], {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(words, stderr=said, cwd=tmp_path, env=paths, start_new_session=True)
    try:
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT
        assert (tmp_path / "said").read_text() == "curate: interrupted; what was saved before is whole\n"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def at_call(monkeypatch, call, owner, name, number=signal.SIGTERM):
    """Let the given call of a function, before it does anything, send a signal to this process."""
    real, count = getattr(owner, name), [0]

    def patched(*arguments, **more):
        count[0] += 1
        if count[0] == call:
            os.kill(os.getpid(), number)
        return real(*arguments, **more)

    monkeypatch.setattr(owner, name, patched)


def stopped(main, words, capsys, said):
    """Run a command that a signal stops."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    assert ended.value.code == 128 + signal.SIGTERM
    assert said in capsys.readouterr().err


def contents(folder):
    """The bytes of each file that a user is to see; there must be no temporary one."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if path.name.endswith(".partial")]
    return {path.name: path.read_bytes() for path in files if path.suffix in (".tar", ".parquet", ".csv")}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(9):
        Image.effect_noise((40 + i, 30), 60).convert("RGB").save(folder / f"{i}.png")
    return folder


def goes_on(main, words, stop_at, tmp_path, monkeypatch, capsys):
    """A command that is stopped three times in the midst of a file ends with the bytes of one that was not."""
    main([*map(str, words(tmp_path / "whole"))])
    for call in (2, 4, 5):
        with monkeypatch.context() as patch:
            at_call(patch, call, *stop_at)
            stopped(main, words(tmp_path / "parts"), capsys, GOES_ON)
        half = contents(tmp_path / "parts")
        assert half.items() <= contents(tmp_path / "whole").items()
    main([*map(str, words(tmp_path / "parts"))])
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_curation_goes_on(photos, tmp_path, monkeypatch, capsys):
    def words(output):
        return ["images", photos, "--output", output, "--shard-size", 3, "--workers", 1]

    goes_on(curate, words, (ShardWriter, "write"), tmp_path, monkeypatch, capsys)


def test_an_import_goes_on(photos, tmp_path, monkeypatch, capsys):
    rows = [json.dumps({"image": path.name, "caption": f"picture {path.stem}"}) for path in sorted(photos.iterdir())]
    (tmp_path / "mine.jsonl").write_text("\n".join(rows))

    def words(output):
        own = ["--images", photos, "--shard-size", 3, "--workers", 1]
        return ["import", tmp_path / "mine.jsonl", "--output", output, *own]

    goes_on(data, words, (ShardWriter, "write"), tmp_path, monkeypatch, capsys)


def test_a_stopped_evaluation_leaves_the_figures_before(tmp_path, shards, monkeypatch, capsys):
    FGCLIP(MINI).save(tmp_path / "weights")
    figures = tmp_path / "figures.json"
    words = [tmp_path / "weights", "--suite", "records", "--data", shards / "val-*.tar", "--output", figures]
    words += ["--text-cache", tmp_path / "texts"]
    evaluate.main([*map(str, words)])
    before = figures.read_bytes()
    for stop_at in ((Share, "_meet"), (os, "replace")):
        FGCLIP(MINI).save(tmp_path / "weights")
        with monkeypatch.context() as patch:
            at_call(patch, 1, *stop_at)
            stopped(evaluate.main, words, capsys, "evaluate: interrupted; what was saved before is whole\n")
        contents(tmp_path)
        assert figures.read_bytes() == before
    evaluate.main([*map(str, words)])
    assert figures.read_bytes() != before
