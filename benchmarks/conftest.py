"""The order of the benchmarks."""

FIRST = "bench_hard_negative_loss.py"  # compares with a copy into fresh memory, which a process gets at first only


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name != FIRST)
