"""The pace of a long run, as a dry run tells it from a few steps: batches made ahead do not hide the wait for data."""

from types import SimpleNamespace

import pytest

from fgclip_fast.run import dry_run


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves where a test moves it."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(dry_run.time, "perf_counter", lambda: now.seconds)
    return now


def arriving(clock, ready, seconds):
    """Batches of which the first are ready, and each of the others takes some seconds."""
    number = 0
    while True:
        number += 1
        clock.seconds += seconds if number > ready else 0.0
        yield number


@pytest.mark.parametrize(("each", "step", "waiting"), [(4.0, 4.0, 0.75), (0.5, 1.0, 0.0)])
def test_full_queues_do_not_hide_slow_workers(clock, each, step, waiting):
    found = dry_run._pace([1.0, 1.0, 1.0], [0.0, 0.0, 0.0], arriving(clock, 8, each), queued=8)
    assert found == (pytest.approx(step), pytest.approx(waiting))


def test_without_workers_each_step_waits_for_its_own_batch(clock):
    assert dry_run._pace([2.0, 2.0, 4.0], [1.0, 1.0, 2.0], arriving(clock, 0, 9.0), queued=0) == (2.0, 0.5)
    assert clock.seconds == 0.0  # no batch was taken
