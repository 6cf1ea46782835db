"""The log: one line for each step, also after an interruption."""

import io
import json
import math
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from fgclip_fast.training import disk_thread, log_writer, monitor as monitor_module
from fgclip_fast.training.host_copy import HostCopy
from fgclip_fast.training.log_writer import LOG, LogWriter, truncate_log
from fgclip_fast.training.monitor import Monitor, peak_memory
from fgclip_fast.training.objective import Losses


def record(monitor, step, skipped=0.0, loss=None):
    losses = Losses(*(torch.tensor(float(step) if loss is None else loss) for _ in Losses._fields))
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


def test_a_loss_far_above_those_before_is_flagged(tmp_path, caplog):
    monitor = Monitor(tmp_path, steps=99, quiet=True)
    for step in range(1, 61):
        record(monitor, step, loss=2.0 + 0.01 * (step % 5) + (3.0 if step == 58 else 0.0))
    monitor.close()
    assert [line["step"] for line in lines(tmp_path) if line["kind"] == "spike"] == [58]
    assert "step 58: the loss is 5.030, after a median of 2.020" in caplog.text


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


def test_lines_that_the_disk_refuses_wait_and_are_told_of_once(tmp_path, monkeypatch, caplog):
    append, full = log_writer._append_whole, {"full": True}

    def maybe(*args):
        if full["full"]:
            raise OSError(28, "No space left on device")
        append(*args)

    monkeypatch.setattr(log_writer, "_append_whole", maybe)
    caplog.set_level("INFO", "fgclip_fast")
    monitor = Monitor(tmp_path, steps=9, quiet=True)
    for step in range(1, 9):
        full["full"] = step < 6
        record(monitor, step)
    monitor.close()
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 9))
    assert caplog.text.count("the log cannot be written") == 1 and "no line is lost" in caplog.text


def test_lines_that_are_lost_in_the_end_are_an_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_writer, "_append_whole", full)
    monitor = Monitor(tmp_path, steps=2, quiet=True)
    record(monitor, 1)
    with pytest.raises(OSError, match=r"log.jsonl: the last 1 lines of the log could not be written"):
        monitor.close()


def test_half_a_line_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / LOG
    path.write_bytes(b"before\n")

    class Short(io.FileIO):
        def write(self, data):
            return super().write(data[:3])

    monkeypatch.setattr(type(path), "open", lambda self, *_, **__: Short(self, "a"))
    with pytest.raises(OSError, match="3 of 6 bytes"):
        log_writer._append_whole(path, b"after\n")
    monkeypatch.undo()
    assert path.read_bytes() == b"before\n"


def test_a_folder_that_is_removed_is_made_anew_and_one_whose_disk_went_away_is_not(tmp_path):
    log_writer._append_whole(tmp_path / "run" / LOG, b"a\n")
    assert (tmp_path / "run" / LOG).read_bytes() == b"a\n"
    with pytest.raises(FileNotFoundError):
        log_writer._append_whole(tmp_path / "disk" / "run" / LOG, b"a\n")


def test_a_file_system_that_does_not_answer_is_told_once_and_holds_no_step_up(tmp_path, monkeypatch, caplog):
    append, answers = log_writer._append_whole, threading.Event()
    monkeypatch.setattr(disk_thread, "HANG", 0.05)
    monkeypatch.setattr(log_writer, "_append_whole", lambda *arguments: (answers.wait(60), append(*arguments)))
    writer = LogWriter(tmp_path, 9, 0, quiet=True)
    for step in range(1, 6):
        writer.write(step, "records", {})
    assert not writer.sync() and lines(tmp_path) == []
    assert caplog.text.count("the file system has not answered for") == 1
    answers.set()
    while not writer.sync():
        time.sleep(0.01)
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 6))
    answers.clear()
    writer.write(6, "records", {})
    with pytest.raises(TimeoutError, match="the file system does not answer"):
        writer.close()
    answers.set()


def test_tensorboard_that_cannot_write_is_given_up(tmp_path, monkeypatch, caplog):
    writer = LogWriter(tmp_path, 9, 0, quiet=True)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    for step in (1, 2):
        writer.write(step, "records", {"bad": 1})
    writer.close()
    assert caplog.text.count("cannot be written ([Errno 28] No space left on device)") == 1
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


@pytest.mark.parametrize("call", ["add_scalar", "close"])
def test_tensorboard_that_hangs_is_given_up_and_holds_no_line_up(tmp_path, monkeypatch, caplog, call):
    answers = threading.Event()
    monkeypatch.setattr(disk_thread, "HANG", 0.05)
    monkeypatch.setattr(SummaryWriter, call, lambda *_: answers.wait(60))
    writer = LogWriter(tmp_path, 9, 0, quiet=True)
    for step in range(1, 6):
        writer.write(step, "records", {"bad": 1})
    writer.close()
    answers.set()
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 6))
    assert caplog.text.count("tensorboard: the file system has not answered for") == 1


def test_lines_that_cannot_be_read_are_counted_and_left_out(tmp_path, caplog):
    (tmp_path / LOG).write_bytes(b'{"step": 1}\n12\n\xff\xfe\n{"step": "a"}\n[]\n\n{"step": 2}\n{"step": 9}\n')
    truncate_log(tmp_path / LOG, 2)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    assert "5 lines cannot be read and are left out" in caplog.text


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
