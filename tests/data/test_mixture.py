"""Mixtures: each set in its share, the same samples for any number of processes, and nothing stored."""

from collections import Counter

import pytest

from fgclip_fast.data.mixture import MixedOrder, Source
from fgclip_fast.data.order import Order
from fgclip_fast.data.shards import weighted

COUNTS = [5, 8, 3, 7, 9, 10]
SMALL, LARGE = Source(2.25, [0, 1, 2]), Source(0.5, [3, 4, 5])


def epoch(order, number):
    return [order.address(number, position) for position in range(order.samples)]


def mixed(seed=3, **settings):
    return MixedOrder(COUNTS, [SMALL, LARGE], **{"seed": seed, "lanes": 4, "window": 2, **settings})


def test_an_epoch_holds_whole_passes_and_a_part():
    order = mixed()
    assert order.samples == 2 * 16 + 4 + 13
    visits = Counter(epoch(order, 0))
    small = [visits[address] for address in visits if address.shard < 3]
    assert len(small) == 16 and sum(small) == 36 and set(small) == {2, 3}
    assert sum(n for address, n in visits.items() if address.shard >= 3) == 13


def test_parts_of_consecutive_epochs_go_through_the_whole_set():
    order = mixed(small=0)
    two = Counter(address for number in (0, 1) for address in epoch(order, number) if address.shard >= 3)
    assert len(two) == 26 and set(two.values()) == {1}
    four = Counter(address for number in range(4) for address in epoch(order, number) if address.shard < 3)
    assert set(four.values()) == {9} and len(four) == 16


@pytest.mark.parametrize("small", [0, 1000], ids=["lanes", "whole"])
def test_any_number_of_processes_reads_the_same_samples_from_any_step_on(small):
    alone = [mixed(small=small).address(7, position) for position in range(48)]
    for world_size in (1, 2, 4):
        orders = [mixed(world_size=world_size, small=small) for _ in range(world_size)]
        for step in range(4):
            found = [
                order.address(7, position)
                for rank, order in enumerate(orders)
                for position in order.positions(12 * step, 12, rank)
            ]
            assert Counter(found) == Counter(alone[12 * step : 12 * (step + 1)])


def test_seeds_and_epochs_differ_and_replacements_are_of_the_mixture():
    order = mixed()
    assert epoch(order, 0) == epoch(mixed(), 0) != epoch(mixed(seed=4), 0) and epoch(order, 0) != epoch(order, 1)
    assert all(address.sample < COUNTS[address.shard] for p in range(49) for address in [order.replacement(2, p, 1)])


def test_one_set_of_weight_one_is_in_the_order_without_weights():
    one = MixedOrder(COUNTS, [Source(1.0, list(range(6)))], seed=3, lanes=4, window=2)
    assert epoch(one, 5) == epoch(Order(COUNTS, seed=3, lanes=4, window=2), 5)


def test_a_pattern_gives_sets_and_weights(tmp_path):
    for name in ("a-0", "a-1", "b c-0"):
        (tmp_path / f"{name}.tar").touch()
    names = lambda pattern: [(w, [p.stem for p in paths]) for w, paths in weighted(pattern)]  # noqa: E731
    assert names(f"{tmp_path}/a-*.tar@2 {tmp_path}/b c-0.tar@0.25") == [(2, ["a-0", "a-1"]), (0.25, ["b c-0"])]
    assert names(f"{tmp_path}/a-{{0..1}}.tar::{tmp_path}/b c-0.tar@1.5") == [(1, ["a-0", "a-1"]), (1.5, ["b c-0"])]
    with pytest.raises(ValueError, match=r"a weight must be above 0, got '.*a-0\.tar@0'"):
        weighted(f"{tmp_path}/a-0.tar@0")
