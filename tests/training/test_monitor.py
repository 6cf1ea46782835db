"""The log: one line for each step, also after an interruption."""

import json
import math
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch

from fgclip_fast.training import monitor as monitor_module
from fgclip_fast.training.host_copy import HostCopy
from fgclip_fast.training.log_writer import LOG, LogWriter, truncate_log
from fgclip_fast.training.monitor import Monitor, peak_memory
from fgclip_fast.training.objective import Losses


def record(monitor, step, skipped=0.0):
    losses = Losses(*(torch.tensor(float(step)) for _ in Losses._fields))
    monitor.record(step, losses, torch.tensor(1.0), torch.tensor(skipped), lr=0.1, images=4, tokens=100)


def lines(run):
    return [json.loads(line) for line in (run / LOG).read_text().splitlines()]


def test_every_step_is_written_once_and_in_order(tmp_path):
    monitor = Monitor(tmp_path, steps=3, quiet=True)
    for step in (1, 2, 3):
        record(monitor, step)
    monitor.note(3, "records", {"empty box": 2})
    monitor.close()
    assert [line["total"] for line in lines(tmp_path) if line["kind"] == "train"] == [1.0, 2.0, 3.0]
    assert {"kind": "records", "step": 3, "empty box": 2} in lines(tmp_path)
    assert all(line["images_per_s"] > 0 for line in lines(tmp_path) if line["kind"] == "train")


def test_a_resumed_run_has_one_history(tmp_path):
    monitor = Monitor(tmp_path, steps=9, quiet=True)
    for step in (1, 2, 3, 4):
        record(monitor, step)
    monitor.close()
    again = Monitor(tmp_path, steps=9, done=2, quiet=True)
    record(again, 3)
    again.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    (tmp_path / LOG).write_text('{"step": 1}\n{"step": 2}\n{"st')
    truncate_log(tmp_path / LOG, 2)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_a_skipped_step_is_logged(tmp_path, caplog):
    monitor = Monitor(tmp_path, steps=1, quiet=True)
    record(monitor, 1, skipped=1.0)
    monitor.close()
    assert "step 1: the gradient is not finite" in caplog.text


def test_a_figure_that_is_not_finite_is_null_since_json_lacks_it(tmp_path):
    monitor = Monitor(tmp_path, steps=1, quiet=True)
    monitor.note(1, "validation", {"loss_total": math.nan})
    monitor.close()
    text = (tmp_path / LOG).read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 1, "kind": "validation", "loss_total": None}


def test_other_processes_write_nothing(tmp_path):
    monitor = Monitor(tmp_path, steps=1, writes=False)
    record(monitor, 1)
    monitor.close()
    assert list(tmp_path.iterdir()) == []


def test_figures_are_read_when_the_next_step_is_queued(tmp_path, monkeypatch):
    reads = []
    monkeypatch.setattr(HostCopy, "read", lambda copy: reads.append(copy) or [0.0] * 7)
    monitor = Monitor(tmp_path, steps=3, quiet=True)
    for step in (1, 2, 3):
        record(monitor, step)
        assert len(reads) == step - 1
    monitor.close()
    assert len(reads) == 3


def test_the_caller_goes_on_while_a_line_is_written(tmp_path, monkeypatch):
    going_on = threading.Event()
    write = LogWriter._write
    monkeypatch.setattr(LogWriter, "_write", lambda *args: going_on.wait(60) and write(*args))
    writer = LogWriter(tmp_path, 1, 0, quiet=True)
    writer.write(1, "records", {"bad": 1})
    assert lines(tmp_path) == []
    going_on.set()
    writer.close()
    assert lines(tmp_path) == [{"step": 1, "kind": "records", "bad": 1}]


def test_a_line_that_cannot_be_written_ends_the_run_with_a_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LogWriter, "_write", full)
    monitor = Monitor(tmp_path, steps=9, quiet=True)
    with pytest.raises(OSError, match=r"log.jsonl: the log of the run could not be written: .*No space left"):
        for step in range(1, 9):
            record(monitor, step)
    assert step == 3  # the first step is written at the second, and its failure is met at the third


def test_a_crash_of_the_loop_keeps_each_line_that_was_given_to_the_writer(tmp_path):
    crash = f"""
from pathlib import Path
from fgclip_fast.training.log_writer import LogWriter
writer = LogWriter(Path({str(tmp_path)!r}), 9, 0, quiet=True)
for step in range(1, 9):
    writer.write(step, "records", {{}})
raise RuntimeError("the loop fails")
"""
    assert subprocess.run([sys.executable, "-c", crash], capture_output=True, check=False).returncode == 1
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 9))


@pytest.mark.parametrize(("system", "count"), [("linux", 2 * 10**6), ("darwin", 2048 * 10**6)])
def test_memory_is_counted_in_the_unit_of_the_system(monkeypatch, system, count):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(monitor_module.sys, "platform", system)
    usage = SimpleNamespace(ru_maxrss=count)
    monkeypatch.setattr(monitor_module.resource, "getrusage", lambda _: usage)
    assert peak_memory() == pytest.approx(2.048)
