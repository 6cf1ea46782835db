"""Freed memory stays in the process, so that a step touches no fresh pages."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import torch
from fgclip_fast.process import heap
if sys.argv[1] == "kept":
    heap.keep_freed_memory("cpu")
    heap.keep_freed_memory("cpu")
def step():
    return [torch.full((2**23,), i) for i in range(3)]
for _ in range(9):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(memory: str) -> int:
    """Page faults of a tenth step that fills 192 MiB."""
    return int(subprocess.check_output([sys.executable, "-c", COUNT, memory], text=True))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_later_step_touches_no_fresh_page():
    assert faults("kept") < 100 < 10_000 < faults("returned")


def test_another_c_library_is_left_alone(monkeypatch):
    from fgclip_fast.process import heap

    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    heap.keep_freed_memory("cpu")


def test_a_run_on_a_gpu_gives_its_memory_back(monkeypatch):
    from fgclip_fast.process import heap

    called = []
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: type("C", (), {"mallopt": called.append}))
    heap.keep_freed_memory("cuda")
    assert not called
