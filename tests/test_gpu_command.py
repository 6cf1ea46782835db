"""`python -m benchmarks.gpu`, the command for a card: a failure costs its own section, and a rehearsal runs all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import report
from benchmarks.gpu.__main__ import run_all, run_section
from benchmarks.gpu.sections import SECTIONS, Section

ROOT = Path(__file__).parents[1]
CASES = """
import os, time
from benchmarks.gpu.case import Case, NotHereError

def missing():
    raise NotHereError("no such package")

def cases(sizes):
    yield Case("good", lambda: {"passed": True, "GB/s": 2.0})
    yield Case("raises", lambda: 1 / 0)
    yield Case("missing", missing)
    yield Case("ends the process", lambda: os._exit(7))
"""
HANGS = """
import time
from benchmarks.gpu.case import Case

def cases(sizes):
    yield Case("good", lambda: {"passed": True})
    yield Case("hangs", lambda: time.sleep(600))
"""


def command(*words):
    done = [sys.executable, "-m", "benchmarks.gpu", *map(str, words)]
    return subprocess.run(done, cwd=ROOT, capture_output=True, text=True)


def test_a_section_that_fails_costs_only_itself(tmp_path, monkeypatch):
    (tmp_path / "cases_that_fail.py").write_text(CASES)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    sections = [
        Section("fails", "cases_that_fail", "Fails", 60),
        Section("absent", "no_such_module", "Absent", 60),
        Section("machine", "benchmarks.gpu.machine", "Machine", 60),
    ]
    record = run_all(sections, tmp_path / "out", minutes=3.0, rehearse=True)
    assert json.loads((tmp_path / "out" / "gpu.json").read_text()) == record
    done = record["sections"]
    assert [section["outcome"] for section in done.values()] == ["failed", "failed", "ok"]
    good, raised, missing = done["fails"]["rows"]  # of the fourth nothing could be written
    assert good == {"case": "good", "passed": True, "GB/s": 2.0}
    assert raised == {"case": "raises", "failed": "ZeroDivisionError: division by zero"}
    assert missing == {"case": "missing", "note": "no such package"}
    assert "No module named 'no_such_module'" in done["absent"]["log"]
    assert any(row["case"] == "torch" and row["value"] for row in done["machine"]["rows"])


@pytest.mark.slow
def test_a_section_that_hangs_is_ended_and_keeps_its_rows(tmp_path, monkeypatch):
    (tmp_path / "cases_that_hang.py").write_text(HANGS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    done = run_section(Section("hangs", "cases_that_hang", "Hangs", 1), tmp_path, 20.0, rehearse=True)
    assert done["outcome"] == "out of time after 20 s" and done["rows"] == [{"case": "good", "passed": True}]


def test_rates_are_given_as_shares_of_the_ceilings():
    ceilings = [{"case": "copy", "GB/s": 8.0}, {"case": "product", "TFLOP/s": 10.0}]
    rows = [{"case": "op", "GB/s": 2.0, "TFLOP/s": 5.0}, {"case": "peer", "note": "not installed"}]
    shared = report.with_shares(rows, ceilings)
    assert shared[0] == {
        "case": "op", "GB/s": 2.0, "share of the copy": 0.25, "TFLOP/s": 5.0, "share of the product": 0.5
    }  # fmt: skip
    assert report.with_shares(shared, ceilings) == shared and shared[1] == rows[1]
    assert report.table(shared).splitlines()[2] == "| op | 2 | 0.25 | 5 | 0.5 |  |"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_it_refuses_in_one_sentence(tmp_path):
    done = command("--output", tmp_path / "out")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr == "benchmarks.gpu: torch must see a GPU, got none; --rehearse runs it on the CPU\n"


@pytest.mark.slow
def test_a_rehearsal_runs_every_section(tmp_path):
    pytest.importorskip("transformers")
    done = command("--output", tmp_path, "--rehearse")
    record = json.loads((tmp_path / "gpu.json").read_text())
    outcomes = {name: section["outcome"] for name, section in record["sections"].items()}
    assert outcomes == {section.name: "ok" for section in SECTIONS} and done.returncode == 0
    assert record["rehearsal"] and all(section["rows"] for section in record["sections"].values())
    for name in ("correctness", "repeats", "tests"):
        assert any(row.get("passed") is True for row in record["sections"][name]["rows"]), name
    for name in ("ceilings", "ops", "step", "compiled", "peers"):
        assert any(row.get("wall ms", 0) > 0 for row in record["sections"][name]["rows"]), name
    page = (tmp_path / "gpu.md").read_text()
    assert "its times mean nothing" in page and all(f"## {section.title}" in page for section in SECTIONS)
