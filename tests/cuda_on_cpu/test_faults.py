"""The model of CUDA notices what a GPU would punish, and lets right kernels pass."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ASCENDING, DESCENDING, _ = SCHEDULES = (0, 1, 2)
Program = Callable[[str], Path]


def run(program: Program, kernel: str, schedule: int = ASCENDING) -> subprocess.CompletedProcess:
    return subprocess.run([program("faults"), kernel, str(schedule)], capture_output=True, text=True)


def values(program: Program, kernel: str, schedule: int) -> list[int]:
    done = run(program, kernel, schedule)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_right_kernels_give_their_result_under_every_schedule(program, schedule):
    assert values(program, "rotate", schedule) == [*range(1, 64), 0]
    assert values(program, "rotate twice", schedule) == list(range(1, 65))
    assert values(program, "aligned load", schedule)[:15] == list(range(0, 60, 4))
    assert values(program, "half before all", schedule)[:32] == [*range(16, 32), *(4 * (n // 2) + 1 for n in range(16))]
    assert values(program, "ballot after a return", schedule)[::2] == [0x5555] * 32
    sums = [sum(range(32)) + 160_000] * 32 + [sum(range(32, 64)) + 160_000] * 32
    assert values(program, "sum of a warp", schedule) == sums


@pytest.mark.parametrize("kernel", ["rotate", "rotate twice"])
def test_a_missing_barrier_shows_in_the_result(program, kernel):
    results = [values(program, f"{kernel} without a barrier", schedule) for schedule in SCHEDULES]
    assert results[ASCENDING] != results[DESCENDING]
    assert results[ASCENDING] != values(program, kernel, ASCENDING)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("read beyond the end", "heap-buffer-overflow"),
        ("read before the start", "heap-buffer-overflow"),
        ("write beyond shared memory", "out of bounds|global-buffer-overflow"),
        ("half at the barrier", r"thread 0 waits at the barrier in line \d+ in vain: thread 32 has returned"),
        ("two barriers", r"thread 0 waits at the barrier in line \d+ in vain: thread 32 waits at the barrier"),
        ("half in the shuffle", r"waits at the warp operation in line \d+ in vain: thread 1 waits at the barrier"),
        ("unaligned load", "misaligned address"),
        ("shuffle after a return", "a lane that has returned is read"),
        ("no blocks", "a GPU refuses this launch"),
    ],
)
def test_a_fault_ends_the_program_with_its_reason(program, kernel, message):
    done = run(program, kernel)
    assert done.returncode != 0
    assert re.search(message, done.stderr), done.stderr
