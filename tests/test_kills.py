"""Kill -9 at random moments, saves included: nothing that was saved is lost, and the run ends as if left alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def check(shards, folder, kills, steps):
    words = ["--shards", shards, "--output", folder, "--kills", kills, "--steps", steps]
    run = [sys.executable, "-m", "tests.kills", *map(str, words)]
    done = subprocess.run(run, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == kills and found["equal"], found
    assert found["saved steps lost"] == found["stale after the next start"] == 0, found
    assert all(name.startswith("step-") for name in found["names"]), found


def test_a_run_that_is_killed_ten_times_ends_as_if_left_alone(shards, tmp_path):
    check(shards, tmp_path, kills=10, steps=12)


@pytest.mark.slow
def test_a_run_that_is_killed_a_hundred_times_ends_as_if_left_alone(shards, tmp_path):
    check(shards, tmp_path, kills=100, steps=24)
