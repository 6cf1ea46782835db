"""Progress without a terminal: plain lines, at least two and at most one in each interval."""

from rich.console import Console

from fgclip_fast import progress
from fgclip_fast.progress import Progress


def test_plain_lines_come_for_the_first_and_the_last_step(capsys):
    shown = Progress(1000)
    for step in range(1, 1001):
        shown.update(step, "loss 1.0")
    shown.close()
    assert capsys.readouterr().out == "1/1000 loss 1.0\n1000/1000 loss 1.0\n"


def test_a_plain_line_comes_after_each_interval(capsys, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0)
    monkeypatch.setattr(progress, "EARLY", ())
    monkeypatch.setattr(progress.time, "monotonic", lambda: 0.0)
    shown = Progress(5)
    for step in (1, 2, 3):
        shown.update(step, "x")
    shown.say("step 3, validation: loss 2.0")
    assert capsys.readouterr().out == "1/5 x\n2/5 x ETA 0:00:00\n3/5 x ETA 0:00:00\nstep 3, validation: loss 2.0\n"


def test_plain_lines_come_early_and_tell_the_time_that_is_left(capsys, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: 2 * next(clock))  # a step takes two seconds
    shown = Progress(200, done=100)
    for step in range(101, 160):
        shown.update(step, "x")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["101/200 x", "103/200 x ETA 0:03:14", "108/200 x ETA 0:03:04", "123/200 x ETA 0:02:34"]


def test_forced_colours_do_not_draw_a_bar_into_a_file(capsys, monkeypatch):
    monkeypatch.setattr(progress, "get_console", lambda: Console(force_terminal=True))
    shown = Progress(1)
    shown.update(1, "loss 1.0")
    shown.close()
    assert capsys.readouterr().out == "1/1 loss 1.0\n"


def test_quiet_shows_nothing(capsys):
    shown = Progress(2, quiet=True)
    shown.update(2, "x")
    shown.say("y")
    shown.close()
    assert capsys.readouterr().out == ""
