"""Signals to one of two processes, or to `torchrun`: both end with 0 and all steps saved, and nothing else changes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fgclip_fast.training import checkpoint
from tests.kills import half_written, losses, write_configs
from tests.stop_signals import steps_in

ROOT = Path(__file__).parents[1]


def found_by(shards, folder, *more):
    words = ["--shards", shards, "--output", folder, *more]
    run = [sys.executable, "-m", "tests.stop_signals", *map(str, words)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    return found


def check(shards, folder, signals, steps):
    found = found_by(shards, folder, "--signals", signals, "--steps", steps)
    assert found["signals"] == signals and found["statuses"] == [0] and found["equal"], found
    # The step before is logged late, the one at hand is finished, and one more until all know.
    assert found["unsaved steps"] == 0 and found["most steps logged after a signal"] <= 3, found


def test_a_signal_to_one_of_two_processes_ends_both_with_all_saved(shards, tmp_path):
    check(shards, tmp_path, signals=1, steps=6)


@pytest.mark.slow
def test_thirty_signals_to_one_of_two_processes_change_nothing(shards, tmp_path):
    check(shards, tmp_path, signals=30, steps=24)


@pytest.mark.slow
def test_ten_kills_of_one_of_two_processes_end_the_other_and_lose_no_saved_step(shards, tmp_path):
    found = found_by(shards, tmp_path, "--signals", 10, "--steps", 24, "--number", signal.SIGKILL)
    # The other ends with an error, or with 0 if all was done.
    assert found["signals"] == 10 and found["equal"] and set(found["statuses"]) <= {-signal.SIGKILL, 0, 1}, found
    told = [text for text in tmp_path.glob("*.txt") if "has died or cannot be reached" in text.read_text()]
    assert len(told) >= 8


def torchrun(name, folder):
    """Start `torchrun` in a session of its own."""
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fgclip_fast.train"]
    words += ["--config", str(folder / f"{name}.yaml"), "--resume", "auto"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / f"{name}.txt").open("a") as output:
        return subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )


def alive(pid):
    """True for a process that has not ended; one that nobody has waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_signals_to_torchrun_change_nothing(shards, tmp_path):
    """SIGUSR1 and SIGKILL end `torchrun` before it can tell its processes."""
    write_configs(shards, tmp_path, ("whole", "stopped"), 60)
    assert torchrun("whole", tmp_path).wait() == 0
    run = tmp_path / "stopped"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL):
        begun, process = steps_in(run), torchrun("stopped", tmp_path)
        while steps_in(run) < begun + 3:
            assert process.poll() is None, (tmp_path / "stopped.txt").read_text()
            time.sleep(0.05)
        ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(process.pid, number)
        process.wait()
        while any(map(alive, ranks)):
            time.sleep(0.05)
        text = (tmp_path / "stopped.txt").read_text()
        assert checkpoint.step_of(checkpoint.newest_sound(run)) == len(losses(run)) < 60, text
        assert f"{len(losses(run))} of 60 steps done" in text and not half_written(run), text
    assert torchrun("stopped", tmp_path).wait() == 0
    assert losses(run) == losses(tmp_path / "whole")
