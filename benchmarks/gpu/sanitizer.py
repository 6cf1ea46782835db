"""NVIDIA's compute-sanitizer over one small call of each op."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.gpu.case import Case, Figures, NotHereError
from benchmarks.gpu.sizes import Sizes

ROOT = Path(__file__).parents[2]
# Without the caching allocator a read past the end of a tensor leaves its allocation, and is seen.
ENVIRONMENT = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "FGCLIP_AUTOTUNE": "0"}


def cases(sizes: Sizes) -> Iterator[Case]:
    """The calls by themselves, then under each tool."""
    yield Case("calls", lambda: _calls(sizes, []))
    for tool in ("memcheck", "racecheck"):
        yield Case(tool, partial(_sanitized, sizes, tool))


def _sanitized(sizes: Sizes, tool: str) -> Figures:
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(program).exists():
        raise NotHereError("compute-sanitizer is not on PATH")
    if not sizes.on_gpu:
        raise NotHereError("no GPU")
    # Torch asks the driver for things that it may refuse; that is no fault of a kernel.
    quiet = ["--report-api-errors", "no"] if tool == "memcheck" else []
    return _calls(sizes, [program, "--tool", tool, "--error-exitcode", "9", *quiet])


def _calls(sizes: Sizes, prefix: list[str]) -> Figures:
    command = [*prefix, sys.executable, "-m", "benchmarks.gpu.small_calls", sizes.device.type]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    print(done.stdout[-8000:] + done.stderr[-4000:], flush=True)
    summary = re.findall(r"^=+ (.*SUMMARY.*)", done.stdout + done.stderr, flags=re.MULTILINE)
    return {"passed": done.returncode == 0, "summary": "; ".join(summary)}
