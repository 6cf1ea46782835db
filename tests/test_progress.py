"""Progress without a terminal: plain lines, at least two and at most one in each interval."""

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
    shown = Progress(5)
    for step in (1, 2, 3):
        shown.update(step, "x")
    shown.say("step 3, validation: loss 2.0")
    assert capsys.readouterr().out == "1/5 x\n2/5 x\n3/5 x\nstep 3, validation: loss 2.0\n"


def test_quiet_shows_nothing(capsys):
    shown = Progress(2, quiet=True)
    shown.update(2, "x")
    shown.say("y")
    shown.close()
    assert capsys.readouterr().out == ""
