"""Stops runs of two processes by a signal to one of them at random moments, resumes each, and compares the whole log.

``python -m tests.stop_signals --shards DIR --output DIR --signals 30`` prints one line of JSON; with ``--number 9`` one
of the two is killed. Processes are forks of
a parent that has loaded the packages, as in :mod:`tests.kills`; they meet as those of ``torchrun`` do.
"""

import argparse
import json
import os
import random
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from fgclip_fast.training import checkpoint
from tests.kills import half_written, losses, start, warm, write_configs

WORLD_SIZE = 2
MOST_STEPS = 6
"""Steps of a resumed run before a signal."""
LONGEST_STEP = 0.1
"""Seconds."""


@dataclass
class Found:
    """What came of the signals."""

    ends: list[list[int]] = field(default_factory=list)
    """Statuses of the processes of each run that a signal stopped."""
    seconds: list[float] = field(default_factory=list)
    """From each signal to the end of the last process."""
    steps: list[int] = field(default_factory=list)
    """Steps that came into the log after each signal."""
    unsaved: list[int] = field(default_factory=list)
    """Steps that each of these runs had done and not saved."""


def start_all(words: list[str], text: Path) -> list[int]:
    """Start the processes of a run; return their process ids."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = str(found.getsockname()[1])
    meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": str(WORLD_SIZE)}
    return [start(words, text, {**meeting, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(WORLD_SIZE)]


def ended(pid: int) -> bool:
    """True for a process that has ended; it is not waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def statuses(pids: list[int]) -> list[int]:
    """Wait for processes."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def steps_in(run: Path) -> int:
    """Steps in the log, as it is now."""
    log = run / "log.jsonl"
    return log.read_bytes().count(b'"kind": "train"') if log.exists() else 0


def stop(pids: list[int], run: Path, chance: random.Random, number: int, found: Found) -> bool:
    """Send a signal to one of the processes, after some new steps and at any moment of one; False if they ended."""
    wanted, moment = steps_in(run) + chance.randint(1, MOST_STEPS), chance.uniform(0, LONGEST_STEP)
    while steps_in(run) < wanted:
        if any(map(ended, pids)):
            return False
        time.sleep(0.002)
    time.sleep(moment)
    logged, sent = steps_in(run), time.monotonic()
    if any(map(ended, pids)):
        return False
    os.kill(chance.choice(pids), number)
    found.ends.append(statuses(pids))
    found.seconds.append(time.monotonic() - sent)
    found.steps.append(steps_in(run) - logged)
    saved = checkpoint.newest_sound(run)
    found.unsaved.append(len(losses(run)) - (checkpoint.step_of(saved) if saved else 0))
    return True


def main() -> None:
    """Send the signals and print what was found."""
    reader = argparse.ArgumentParser()
    for name in ("shards", "output"):
        reader.add_argument(f"--{name}", type=Path, required=True)
    reader.add_argument("--signals", type=int, default=2)
    reader.add_argument("--steps", type=int, default=12)
    reader.add_argument("--number", type=int, default=signal.SIGTERM)
    reader.add_argument("--seed", type=int, default=0)
    asked = reader.parse_args()
    folder, chance, found = asked.output, random.Random(asked.seed), Found()
    write_configs(asked.shards, folder, ("whole", "stopped"), asked.steps)
    warm()
    run = folder / "stopped"
    pids = start_all(["--config", str(folder / "whole.yaml")], folder / "whole.txt")
    assert statuses(pids) == [0] * WORLD_SIZE, (folder / "whole.txt").read_text()
    words, equal, rounds = ["--config", str(folder / "stopped.yaml"), "--resume", "auto"], True, 0
    while len(found.ends) < asked.signals or (run / "checkpoints").exists():
        text = folder / f"{rounds}-{len(found.ends)}.txt"
        pids = start_all(words, text)
        if len(found.ends) == asked.signals or not stop(pids, run, chance, asked.number, found):
            assert statuses(pids) == [0] * WORLD_SIZE, text.read_text()
        if len(losses(run)) == asked.steps:  # more signals may be wanted than one run holds
            equal &= losses(run) == losses(folder / "whole")
            assert not half_written(run)
            run.rename(folder / f"stopped-{rounds}")
            rounds += 1
    result = {
        "signals": len(found.ends), "runs": rounds, "statuses": sorted({x for end in found.ends for x in end}),
        "most steps logged after a signal": max(found.steps), "longest seconds": max(found.seconds),
        "unsaved steps": max(found.unsaved), "equal": equal,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
