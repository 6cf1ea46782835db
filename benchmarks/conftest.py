"""The order of the benchmarks, and the memory that one leaves to the next."""

import gc

import pytest

FIRST = "bench_hard_negative_loss.py"  # compares with a copy into fresh memory, which a process gets at first only


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name != FIRST)


@pytest.fixture(autouse=True)
def _memory_of_the_last_one_is_freed():
    """Collect the models of the benchmark before, which are parts of cycles: two of them do not fit into 24 GB."""
    gc.collect()
