"""The saver: jobs in order beside the caller, and what the disk refuses."""

import threading

import pytest

from fgclip_fast.training import disk_thread, saver as saver_module
from fgclip_fast.training.saver import Saver


def refuse():
    raise OSError(28, "No space left on device")


def test_the_caller_goes_on_and_the_next_job_waits_for_the_one_before():
    going_on, done = threading.Event(), []
    saver = Saver(1, 0)
    saver.submit(lambda: (going_on.wait(60), done.append(1)))
    assert done == []
    threading.Timer(0.05, going_on.set).start()
    saver.submit(lambda: done.append(2))
    assert done[0] == 1
    saver.wait()
    assert done == [1, 2]


def test_what_the_disk_refuses_is_told_once_and_soon_due_again(caplog, monkeypatch):
    caplog.set_level("INFO", "fgclip_fast")
    saver = Saver(100, 0)
    for _ in range(3):
        saver.submit(refuse)
    saver.wait()
    assert caplog.text.count("a checkpoint cannot be written") == 1 and not saver.due(7)
    monkeypatch.setattr(saver_module, "RETRY", 0.0)
    assert saver.due(7)
    saver.submit(lambda: None)
    saver.wait()
    assert "checkpoints can be written again" in caplog.text and not saver.due(7)


def test_another_fault_ends_the_run():
    saver = Saver(1, 0)
    saver.submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        saver.wait()
    saver.wait()


def test_the_last_job_is_tried_again_until_patience_ends(monkeypatch, caplog):
    monkeypatch.setattr(saver_module, "PAUSE", 0.0)
    left = [refuse, refuse, lambda: None]
    Saver(1, 0).finish(lambda: left.pop(0)(), patience=60)
    assert left == [] and caplog.text.count("the last checkpoint cannot be written") == 1
    with pytest.raises(OSError, match="No space left"):
        Saver(1, 0).finish(refuse, patience=0)


def test_a_checkpoint_is_due_by_number_or_by_the_clock(monkeypatch):
    assert [step for step in range(1, 10) if Saver(4, 0).due(step)] == [4, 8]
    assert not Saver(0, 0).due(4)
    saver = Saver(0, 15)
    assert not saver.due(4)
    now = saver_module.time.monotonic()
    monkeypatch.setattr(saver_module.time, "monotonic", lambda: now + 901)
    assert saver.due(5)


def test_a_job_that_hangs_is_told_once_and_the_next_waits_for_it(monkeypatch, caplog):
    """As with a network's file system that answers again after a while."""
    monkeypatch.setattr(disk_thread, "HANG", 0.05)
    caplog.set_level("INFO", "fgclip_fast")
    answers, done = threading.Event(), []
    saver = Saver(2, 0)
    assert saver.due(2)
    saver.submit(lambda: (answers.wait(60), done.append(2)))
    assert [step for step in range(3, 9) if saver.due(step)] == [] == done
    assert caplog.text.count("checkpoints: the file system has not answered") == 1
    with pytest.raises(TimeoutError, match="checkpoints: the file system has not answered"):
        saver.finish(lambda: done.append(8), patience=0.05)
    saver.submit(lambda: done.append("best"))  # what is not put off stands in line
    answers.set()
    saver.wait()
    assert done == [2, "best"] and "checkpoints: the file system answers again" in caplog.text
    assert saver.due(9)  # as soon as may be, in place of those that were put off
    saver.submit(lambda: done.append(9))
    saver.wait()
    assert done[2:] == [9] and not saver.due(11)
