"""Progress without a terminal: plain lines, at least two, at most one in each interval; in a notebook one display."""

import json
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from fgclip_fast.process import progress
from fgclip_fast.process.progress import Progress


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


class Shown:
    """A stand-in for IPython's display: what lies in the cell, and how often it was sent."""

    def __init__(self):
        self.html, self.text, self.sent = "", "", 0

    def display(self, shown, display_id):
        assert display_id is True
        self.update(shown)
        return self

    def update(self, shown):
        self.html, self.text, self.sent = shown._repr_html_(), repr(shown), self.sent + 1


@pytest.fixture
def notebook(monkeypatch):
    cell = Shown()
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=cell.display))
    monkeypatch.setattr(progress, "get_console", lambda: SimpleNamespace(is_jupyter=True))
    return cell


def test_a_notebook_shows_one_display_that_stays(notebook, capsys):
    shown = Progress(1000)
    shown.update(1, "loss 2.0")
    shown.say("step 1, validation: a < b")
    for step in range(2, 1001):
        shown.update(step, "loss 1.0")
    shown.close()
    assert notebook.text == "1000/1000 loss 1.0\nstep 1, validation: a < b"
    assert '<progress value="1000" max="1000">' in notebook.html and "validation: a &lt; b" in notebook.html
    assert notebook.sent < 100 and capsys.readouterr().out == ""


def test_a_task_that_ends_early_leaves_its_newest_line_in_the_notebook(notebook):
    shown = Progress(1000, done=10)
    shown.update(11, "loss 2.0")
    shown.close()
    assert notebook.text.startswith("11/1000 loss 2.0") and '<progress value="11" max="1000">' in notebook.html


@pytest.mark.slow
def test_a_real_kernel_without_widgets_keeps_one_output():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    # From a thread, as the log of a run is written.
    code = """
import sys, threading
sys.modules["ipywidgets"] = None
from fgclip_fast.process.progress import Progress
shown = Progress(9)
def work():
    for step in range(1, 10):
        shown.update(step, "loss")
thread = threading.Thread(target=work); thread.start(); thread.join(); shown.close()
"""
    cell = nbformat.v4.new_code_cell(code)
    nbclient.NotebookClient(nbformat.v4.new_notebook(cells=[cell]), timeout=60).execute()
    (output,) = cell.outputs
    assert output.output_type == "display_data" and output.data["text/plain"] == "9/9 loss", json.dumps(output)
