"""The tests of the ops, on the card where there is one."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.gpu.case import Case, Figures
from benchmarks.gpu.sizes import Sizes

ROOT = Path(__file__).parents[2]


def cases(sizes: Sizes) -> Iterator[Case]:
    """A case for each file of tests/ops; of a rehearsal the quickest."""
    pattern = "test_prefix_tree.py" if sizes.rehearsal else "test_*.py"
    for file in sorted((ROOT / "tests" / "ops").glob(pattern)):
        yield Case(file.name, partial(_tests, file))


def _tests(file: Path) -> Figures:
    options = ["-m", "not slow", "--tb=short", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(file)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"FGCLIP_AUTOTUNE": "0"}, capture_output=True, text=True)
    print(done.stdout[-8000:] + done.stderr[-2000:], flush=True)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", done.stdout)}
    failed = re.findall(r"^(?:FAILED|ERROR) \S*?::(\S+)", done.stdout, flags=re.MULTILINE)
    return {
        "passed": done.returncode == 0,
        "tests passed": counts.get("passed", 0),
        "skipped": counts.get("skipped", 0),
        "failed tests": ", ".join(failed),
    }
