"""Is all right on this card, and what is it worth? Tests, checks and measurements, in ten minutes at most.

python -m benchmarks.gpu --output DIR               # on a machine with a GPU
python -m benchmarks.gpu --output DIR --rehearse    # each section with tiny sizes on the CPU: its times mean nothing

Each section runs in a process of its own with a deadline of its own, so that its failure costs its own rows.
DIR/gpu.json and DIR/gpu.md are written after each. Needs torch, triton, numpy and the built extension; a peer that is
not installed is named in its row. Exits with 1 if a section failed, ran out of time, or a check did not hold.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import report
from benchmarks.gpu.sections import SECTIONS, Section

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of gpu.json, gpu.md and the logs")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all sections together, at most")
    parser.add_argument("--rehearse", action="store_true", help="run with tiny sizes on the CPU")
    chosen = parser.parse_args()
    if not chosen.rehearse and not torch.cuda.is_available():
        print("benchmarks.gpu: torch must see a GPU, got none; --rehearse runs it on the CPU", file=sys.stderr)
        return 2
    record = run_all(SECTIONS, chosen.output, chosen.minutes, chosen.rehearse)
    return 0 if all(section["outcome"] == "ok" for section in record["sections"].values()) else 1


def run_all(sections: Sequence[Section], output: Path, minutes: float, rehearse: bool) -> dict[str, Any]:
    """Run the sections in order and return what ``gpu.json`` holds; it is written after each section.

    A section may take its share of the time, and what those before it left over.
    """
    output = output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    a_second = 60 * minutes / sum(section.seconds for section in sections)
    record: dict[str, Any] = {
        "command": "python -m benchmarks.gpu" + " --rehearse" * rehearse,
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "rehearsal": rehearse,
        "sections": {},
    }
    for number, section in enumerate(sections):
        later = a_second * sum(other.seconds for other in sections[number + 1 :])
        done = run_section(section, output, max(1.0, end - time.monotonic() - later), rehearse)
        record["sections"][section.name] = done
        report.write(output, sections, record)
        print(f"{section.name:12} {done['outcome']}, {done['seconds']:.0f} s", flush=True)
    print(output / "gpu.md")
    return record


def run_section(section: Section, output: Path, deadline: float, rehearse: bool) -> dict[str, Any]:
    """Run a section in a process of its own, which is killed with all that it started ``deadline`` seconds later."""
    rows, log = (output / f"{section.name}.{kind}" for kind in ("jsonl", "log"))
    rows.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu.worker", section.module, str(rows), *["--rehearse"] * rehearse]
    changes = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if rehearse else {}
    start = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | changes, stdout=file, stderr=file, start_new_session=True
        )
        try:
            outcome = "ok" if process.wait(timeout=deadline) == 0 else "failed"
        except subprocess.TimeoutExpired:
            outcome = f"out of time after {deadline:.0f} s"
        finally:
            _kill(process)
    written = report.read_rows(rows)
    if outcome == "ok" and any("failed" in row or row.get("passed") is False for row in written):
        outcome = "failed"
    seconds = time.monotonic() - start
    return {"outcome": outcome, "seconds": seconds, "rows": written, "log": log.read_text(errors="replace")[-2000:]}


def _kill(process: subprocess.Popen) -> None:
    """End the process and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
