"""Jobs in order beside the caller, and a disk that does not answer."""

import threading

import pytest

from fgclip_fast.training import disk_thread
from fgclip_fast.training.disk_thread import DiskThread


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(disk_thread, "HANG", 0.02)


def test_jobs_run_in_the_order_in_which_they_were_given():
    going_on, done = threading.Event(), []
    disk = DiskThread("a file")
    disk.submit(lambda: going_on.wait(60))
    for number in range(20):
        disk.submit(lambda number=number: done.append(number))
    assert done == []
    going_on.set()
    assert disk.has_ended() and done == list(range(20))


def test_nothing_to_do_has_ended():
    disk = DiskThread("a file")
    disk.wait()
    assert disk.has_ended()


def test_its_thread_ends_with_the_last_job():
    disk = DiskThread("a file")
    for _ in range(3):
        disk.submit(lambda: None)
        disk.wait()
    assert not any("a file" in thread.name for thread in threading.enumerate())


def test_a_disk_that_hangs_is_told_of_once_each_time(impatient, caplog):
    caplog.set_level("INFO", "fgclip_fast")
    disk = DiskThread("a file")
    for times in (1, 2):
        answers = threading.Event()
        disk.submit(lambda answers=answers: answers.wait(60))
        assert [disk.has_ended() for _ in range(3)] == [False] * 3
        assert caplog.text.count("a file: the file system has not answered for 0 s; training goes on") == times
        with pytest.raises(TimeoutError, match="a file: the file system has not answered for 0 s"):
            disk.wait(0.01)
        answers.set()
        disk.wait()
        assert disk.has_ended() and caplog.text.count("a file: the file system answers again") == times


def test_a_fault_is_raised_once_also_that_of_a_job_before_the_last(impatient):
    answers = threading.Event()
    disk = DiskThread("a file")
    disk.submit(lambda: answers.wait(60) and 1 / 0)
    assert not disk.has_ended()
    disk.submit(lambda: None)
    answers.set()
    with pytest.raises(ZeroDivisionError):
        disk.wait()
    disk.wait()
