"""The order of an epoch: every sample once, the same for any world size, each rank in its own lanes."""

from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from fgclip_fast.data.order import Order, SampleAddress

COUNTS = [7, 0, 12, 1, 30, 5, 18, 9]


def order(counts=COUNTS, seed=0, lanes=4, window=2, world_size=1, small=0):
    return Order(counts, seed=seed, lanes=lanes, window=window, world_size=world_size, small=small)


def epoch_of(order, epoch=0):
    return [order.address(epoch, position) for position in range(order.samples)]


def all_addresses(counts):
    return {SampleAddress(shard, sample) for shard, count in enumerate(counts) for sample in range(count)}


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(0, 20), min_size=1, max_size=9).filter(any),
    lanes=st.integers(1, 7),
    window=st.integers(1, 4),
    small=st.sampled_from([0, 10**6]),
    seed=st.integers(-(2**40), 2**40),
)
def test_every_sample_comes_once_in_an_epoch(counts, lanes, window, small, seed):
    addresses = epoch_of(order(counts, seed, lanes, window, small=small), epoch=3)
    assert len(addresses) == sum(counts) and set(addresses) == all_addresses(counts)


@pytest.mark.parametrize("small", [0, 10**6], ids=["lanes", "whole"])
@pytest.mark.parametrize("global_batch", [4, 8, 20])
def test_a_global_batch_does_not_depend_on_the_world_size(global_batch, small):
    for step in range(82 // global_batch):
        batches = []
        for world_size in (1, 2, 4):
            ours = order(world_size=world_size, small=small)
            ranks = [list(ours.positions(step * global_batch, global_batch, rank)) for rank in range(world_size)]
            assert {len(positions) for positions in ranks} == {global_batch // world_size}
            batches.append({ours.address(0, position) for positions in ranks for position in positions})
        assert batches[0] == batches[1] == batches[2]


def test_a_rank_reads_only_the_shards_of_its_lanes():
    ours = order([50] * 8, lanes=4, world_size=2)
    shards = [{ours.address(epoch, p).shard for epoch in (0, 1) for p in ours.positions(0, 400, r)} for r in (0, 1)]
    assert shards[0] == {0, 1, 4, 5} and shards[1] == {2, 3, 6, 7}


def test_disks_read_nearly_in_sequence():
    """At any time a lane reads from one window of shards, here 2 of 100 samples."""
    ours = order([100] * 20, lanes=2)
    lane = [ours.address(0, position).shard for position in range(0, ours.samples, 2)]
    assert all(len(set(lane[start : start + 200])) == 2 for start in range(0, len(lane), 200))


def test_a_small_set_is_shuffled_as_a_whole():
    ours = order([40] * 5, lanes=4, small=200)
    assert len({ours.address(0, position).shard for position in range(20)}) > 2


def test_epochs_and_seeds_have_orders_of_their_own():
    assert epoch_of(order()) == epoch_of(order())
    assert epoch_of(order(), 0) != epoch_of(order(), 1) != epoch_of(order(seed=1), 1)


def test_an_address_does_not_depend_on_earlier_calls():
    ours, fresh = order(), order()
    epoch_of(ours, 0), epoch_of(ours, 5)
    assert ours.address(2, 17) == fresh.address(2, 17)


@pytest.mark.parametrize("small", [0, 10**6], ids=["lanes", "whole"])
def test_replacements_come_from_the_same_lane_and_differ(small):
    ours = order([50] * 8, lanes=4, small=small)
    own = {ours.address(0, position) for position in range(2, 400, ours.lanes)}
    drawn = [ours.replacement(0, 2, attempt) for attempt in range(1, 50)]
    assert len(set(drawn)) > 20 and (small or set(drawn) <= own)
    assert drawn == [order([50] * 8, lanes=4, small=small).replacement(0, 2, attempt) for attempt in range(1, 50)]


def test_a_world_size_that_does_not_divide_the_lanes_is_refused():
    with pytest.raises(ValueError, match=r"must divide data.lanes, got 6 and 64; pass --data.lanes 66"):
        order(lanes=64, world_size=6)


def test_a_set_without_samples_is_refused():
    with pytest.raises(ValueError, match="the 2 shards hold no samples"):
        order([0, 0])


def test_twelve_million_samples_need_no_list_of_them():
    ours = order([12_000] * 1_000, lanes=64, window=4)
    addresses = Counter(ours.address(0, position) for position in range(5_000_000, 5_000_512))
    assert max(addresses.values()) == 1
    held = sum(permutation.nbytes for permutation in ours._windows.values())
    assert held < 2**24  # 64 windows of 48,000
