"""The loader: full batches in spite of bad records, and the same bits for any number of workers and restarts."""

import logging
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import simplejpeg
import torch

from fgclip_fast.config import Data
from fgclip_fast.data import causes, loader as loader_module, workers
from fgclip_fast.data.file_order import examples
from fgclip_fast.data.index import index
from fgclip_fast.data.loader import Loader
from fgclip_fast.data.order import Order
from fgclip_fast.inputs import boxes
from fgclip_fast.inputs.tokenizer import Tokenizer

TOKENIZER = Tokenizer()
DATA = Data(train="", val="", workers=0, decoder="cpu")


def load(path, batch_size=4, seed=0, image_size=32, rank=0, world_size=1, **settings):
    here = {name: settings.pop(name) for name in ("micro_batch_size", "packing") if name in settings}
    data = replace(DATA, train=str(path), **settings)
    return Loader(data, image_size=image_size, batch_size=batch_size, seed=seed, tokenizer=TOKENIZER, rank=rank,
                  world_size=world_size, **here)  # fmt: skip


def take(batches, n):
    return [next(batches) for _ in range(n)]


def texts(batch):
    """All texts of a batch, row by row."""
    ends = batch.texts.offsets.tolist()
    return [TOKENIZER.decode(batch.texts.token[first:last]) for first, last in pairwise(ends)]


def numbers(batches):
    """Numbers of the records in a step: their short captions end in a number, each digit of which is a token."""
    shorts = [text for batch in batches for text in texts(batch)[: len(batch.image)]]
    return Counter(int(text.split("mug")[1].replace(" ", "")) for text in shorts)


def equal(step, other):
    pairs = zip(step, other, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(tensors(x), tensors(y), strict=True))


def tensors(batch):
    return [x for x in [*batch, *batch.texts] if isinstance(x, torch.Tensor)]


@pytest.fixture(scope="module")
def good(tmp_path_factory, encoded, record, write_shard):
    """Three shards, 27 good records."""
    folder = tmp_path_factory.mktemp("good")
    for shard in range(3):
        numbers = range(9 * shard, 9 * shard + 9)
        write_shard(folder / f"{shard}.tar", [(encoded(seed=number), record(number)) for number in numbers])
    return folder


def kinds(encoded, record):
    """Fifteen kinds of odd record, each with the cause that it must be counted under; "" if it is good."""
    box = lambda number, *bbox: record(number, bbox_info=[{**record()["bbox_info"][0], "bbox": bbox}])  # noqa: E731
    image = encoded()
    return [
        ((image[: len(image) // 2], record(0)), causes.TRUNCATED_IMAGE),
        ((encoded(format="PNG"), record(1)), ""),
        ((encoded(mode="CMYK"), record(2)), ""),
        ((encoded(mode="L"), record(3)), ""),
        ((encoded(1, 1), record(4)), ""),
        ((image, box(5, 1.2, 0.2, 1.6, 0.9)), boxes.OUTSIDE),
        ((image, box(6, 0.6, 0.2, 0.1, 0.9)), boxes.INVERTED),
        ((image, box(7, 0.1, 0.2, 0.1, 0.9)), boxes.EMPTY),
        ((image, box(8, 0.1, float("nan"), 0.6, 0.9)), boxes.NOT_FINITE),
        ((image, box(9, 0.1, 0.2, 0.6)), boxes.SHORT),
        ((image, {"f_path": "a.jpg", "bbox_info": []}), causes.NO_TEXT),
        ((image, record(11, caption={"a": "mug"})), causes.WRONG_TYPE),
        ((image, b'{"caption": "\xff\xfe"}'), causes.NOT_UTF8),
        ((image, b'{"caption": "a mug'), causes.NOT_JSON),
        ((None, record(14)), causes.NO_IMAGE),
    ]


def test_fifteen_kinds_of_bad_record_leave_every_batch_full(tmp_path, caplog, encoded, record, write_shard):
    caplog.set_level(logging.INFO)
    given = kinds(encoded, record) + [((encoded(), record(number)), "") for number in range(15, 32)]
    write_shard(tmp_path / "bad.tar", [sample for sample, _ in given])
    cause_of = [cause for _, cause in given]
    usable = {number for number, cause in enumerate(cause_of) if cause not in causes.BAD}

    ours = load(tmp_path, seed=5)
    epoch = take(ours.batches(), ours.steps_per_epoch)
    assert ours.steps_per_epoch == 8 and all(len(batch.image) == 4 for (batch,) in epoch)
    used = sum((numbers(step) for step in epoch), Counter())
    assert set(used) == usable and sum(used.values()) == 32

    met = Counter()  # a replacement may be bad in its turn, and is counted like any other
    order = Order([32], seed=5, lanes=DATA.lanes, window=DATA.window)
    for position in range(32):
        for attempt in range(100):
            sample = (order.replacement(0, position, attempt) if attempt else order.address(0, position)).sample
            met[cause_of[sample]] += 1
            if cause_of[sample] not in causes.BAD:
                break
    assert ours.counts == met - Counter({"": met[""]}) and set(ours.counts) == set(cause_of) - {""}
    for number, cause in enumerate(cause_of):
        lines = [line for line in caplog.messages if line.startswith(f"bad.tar, {number:06d}: {cause}")]
        assert len(lines) >= 1 if cause else not lines

    counts = Counter()
    shown = list(examples(str(tmp_path), image_size=32, counts=counts))
    assert len(shown) == len(usable) and counts == Counter(cause for cause in cause_of if cause)


def test_workers_and_restarts_change_no_bit(good):
    settings = {"box_margin": 2.0, "negatives": 2, "packing": "prefix-tree", "micro_batch_size": 3}
    alone = take(load(good, **settings).batches(), 9)  # 6 steps an epoch
    three = load(good, workers=3, **settings)
    assert all(map(equal, take(three.batches(), 9), alone))
    assert all(map(equal, take(three.batches(after=4), 5), alone[4:]))
    assert all(map(equal, take(load(good, **settings).batches(after=7), 2), alone[7:]))


def test_shards_that_are_listed_already_are_not_searched_again(good, monkeypatch):
    paths = load(good).shards
    monkeypatch.delattr(loader_module, "expand")
    ours = Loader(
        replace(DATA, train=str(good)), image_size=32, batch_size=4, seed=0, tokenizer=TOKENIZER, shards=paths
    )
    assert [path.name for path in ours.shards] == ["0.tar", "1.tar", "2.tar"] and len(next(ours.batches())) == 1


def test_ranks_share_the_global_batch_of_one_process(good):
    alone = take(load(good, batch_size=8).batches(), 5)
    ranks = [take(load(good, batch_size=2, rank=rank, world_size=4).batches(), 5) for rank in range(4)]
    for step, parts in zip(alone, zip(*ranks, strict=True), strict=True):
        assert numbers(step) == sum(map(numbers, parts), Counter())


def test_an_epoch_holds_every_record_once_and_drops_the_incomplete_batch(good):
    steps = take(load(good, batch_size=9).batches(), 6)
    for epoch in (steps[:3], steps[3:]):
        assert sum(map(numbers, epoch), Counter()) == Counter(range(27))
    assert load(good, batch_size=10).steps_per_epoch == 2


def test_micro_batches_are_the_batch_in_parts(good):
    (whole,), parts = next(load(good).batches()), next(load(good, micro_batch_size=3).batches())
    assert [len(part.image) for part in parts] == [3, 1]
    assert torch.equal(torch.cat([part.image for part in parts]), whole.image)
    assert numbers(parts) == numbers([whole])


@pytest.mark.parametrize("packing, shares", [("none", None), ("padding-free", False), ("prefix-tree", True)])
def test_texts_are_packed_as_the_model_wants_it(good, packing, shares):
    (batch,) = next(load(good, packing=packing).batches())
    tree = batch.texts.tree
    assert (tree is None) == (packing == "none")
    if tree is not None:
        assert len(tree.pooled) == len(batch.texts.offsets) - 1
        assert (len(tree.pooled.unique()) < len(tree.pooled)) == shares  # equal texts become one


def test_region_texts_are_chosen_anew_each_visit(good):
    ours = load(good, batch_size=9)
    drawn = [Counter(texts(batch)[9:18]) for (batch,) in take(ours.batches(), 9)]
    assert set().union(*drawn) == {"a red mug", "a glossy red mug"}
    assert len({tuple(sorted(texts.items())) for texts in drawn}) > 1
    assert 20 < sum(texts["a red mug"] for texts in drawn) < 61


def test_hard_texts_are_the_short_expression_and_some_negatives_in_file_order(good):
    in_file = ["a red mug", "a green mug", "a blue mug", "a grey mug"]
    for most, given in ((10, 3), (2, 2), (0, 0)):
        (batch,) = next(load(good, negatives=most).batches())
        hard = texts(batch)[8:-4]
        assert len(batch.hard_region) == (4 if given else 0) and len(hard) == (4 * (1 + given) if given else 0)
        for start in range(0, len(hard), 1 + given):
            places = [in_file.index(text) for text in hard[start : start + 1 + given]]
            assert places[0] == 0 and places == sorted(set(places))


def test_short_captions_have_the_prefix_and_long_ones_do_not(good):
    (batch,) = next(load(good, short_prefix="a sketch of ").batches())
    assert all(text.startswith("a sketch of mug") for text in texts(batch)[:4])
    assert all(text.startswith("a red mug , number") for text in texts(batch)[-4:])


def test_only_the_first_regions_are_taken(tmp_path, encoded, record, write_shard):
    regions = [{**record()["bbox_info"][0], "bbox": [0.1 * i, 0.1, 0.9, 0.9]} for i in range(6)]
    write_shard(tmp_path / "a.tar", [(encoded(), record(bbox_info=regions))])
    (batch,) = next(load(tmp_path, batch_size=1, regions=4).batches())
    assert batch.boxes[:, 0].tolist() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert sum(len(e.boxes) for e in examples(str(tmp_path), image_size=8, data=Data(regions=9))) == 6


def test_regions_are_drawn_anew_each_visit_and_the_others_are_counted(tmp_path, encoded, record, write_shard):
    regions = [{"bbox": [0, 0, (i + 1) / 8, 1], "short_expr": f"mug {i}"} for i in range(5)]
    write_shard(tmp_path / "a.tar", [(encoded(), record(n, bbox_info=regions)) for n in range(4)])

    def widths(choice, after=0):
        loader = load(tmp_path, regions=2, region_choice=choice)
        steps = [step.boxes[:, 2].mul(8).int().tolist() for (step,) in take(loader.batches(after), 4)]
        assert loader.counts[causes.MORE_REGIONS] == 4 * 4 * 3
        return steps

    assert widths("first") == [[1, 2] * 4] * 4
    drawn = widths("random")
    assert drawn[2:] == widths("random", after=2)[:2], "a restart draws the same"
    assert {width for step in drawn for width in step} == {1, 2, 3, 4, 5} and drawn[0] != drawn[1]
    assert all(a < b for step in drawn for a, b in zip(step[::2], step[1::2], strict=True)), "in file order"


def test_more_workers_than_cores_are_told_once_with_the_settings(good, monkeypatch, caplog, recwarn):
    monkeypatch.setattr(workers, "cores", lambda: 2)
    load(good, workers=2)
    assert not caplog.text
    load(good, workers=8)
    assert caplog.text.count("8 workers on 2 cores; pass --data.workers 1, and,") == 1 and "--threads" in caplog.text
    assert not [warning for warning in recwarn if "DataLoader" in str(warning.message)]


@pytest.mark.parametrize("workers", [0, 1])
def test_other_micro_batches_hold_the_same_samples_and_count_once(tmp_path, encoded, write_shard, workers):
    write_shard(tmp_path / "a.tar", [(encoded(seed=n), {"short_caption": f"mug {n}"}) for n in range(12)])
    loader = load(tmp_path, workers=workers)
    first = loader.batches()
    assert [len(step) for step in take(first, 2)] == [1, 1]
    loader.set_micro_batch_size(3)
    first.close()
    again = take(loader.batches(after=1), 2)
    assert [[len(batch.image) for batch in step] for step in again] == [[3, 1], [3, 1]]
    expected = take(load(tmp_path, micro_batch_size=3).batches(after=1), 2)
    assert all(equal(*pair) for pair in zip(again, expected, strict=True))
    assert loader.counts == {"long caption filled by the short one": 12}


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_texts_that_lose_their_end_are_counted(tmp_path, encoded, record, write_shard, micro_batch_size):
    fits, cut = " ".join(["mug"] * 75), " ".join(["mug"] * 76)
    region = {"bbox": [0, 0, 1, 1], "short_expr": cut, "short_expr_negs": [fits, "b " * 80]}
    long = record(0, short_caption=fits, caption=" ".join(["mug"] * 247), bbox_info=[region])
    short = record(1, short_caption="mug", caption=" ".join(["mug"] * 246), bbox_info=[])
    write_shard(tmp_path / "a.tar", [(encoded(), long), (encoded(), short)] * 2)
    loader = load(tmp_path, short_prefix="", micro_batch_size=micro_batch_size)
    next(loader.batches())
    assert loader.counts == {causes.EXPRESSION_FILLED: 2, causes.REGION_CUT: 4, causes.LONG_CUT: 2}
    prefixed = load(tmp_path)
    next(prefixed.batches())
    assert prefixed.counts[causes.SHORT_CUT] == 2


def test_one_of_several_captions_is_drawn_at_each_visit(tmp_path, encoded, write_shard):
    several = {"caption": ["a mug", "a cup", "a pot"]}
    write_shard(tmp_path / "a.tar", [(encoded(), several), (encoded(), several | {"short_caption": "thing"})])
    pairs = [texts(step) for (step,) in take(load(tmp_path, batch_size=2, short_prefix="").batches(), 16)]
    drawn = {(short, long) for *shorts, a, b in pairs for short, long in zip(shorts, (a, b), strict=True)}
    assert drawn == {(s, long) for long in ("a mug", "a cup", "a pot") for s in ("thing", long)}
    assert [e.long for e in examples(str(tmp_path), image_size=8)] == ["a mug"] * 2


def test_a_mixture_is_the_same_for_any_processes_and_goes_on_where_it_stopped(tmp_path, encoded, record, write_shard):
    for name, first in (("a", 0), ("b", 4)):
        write_shard(tmp_path / f"{name}.tar", [(encoded(), record(first + n)) for n in range(4)])
    pattern = f"{tmp_path}/a.tar@2 {tmp_path}/b.tar@0.5"
    whole = take(load(pattern, batch_size=2).batches(), 10)
    assert load(pattern, batch_size=2).steps_per_epoch == 5
    epochs = [sum((numbers(step) for step in part), Counter()) for part in (whole[:5], whole[5:])]
    assert [[n for n in epoch.values()].count(2) for epoch in epochs] == [4, 4]
    assert sum(epochs, Counter()) == {**dict.fromkeys(range(4), 4), **dict.fromkeys(range(4, 8), 1)}
    resumed = take(load(pattern, batch_size=2).batches(after=7), 3)
    assert all(equal(a, b) for a, b in zip(resumed, whole[7:], strict=True))
    ranks = [take(load(pattern, batch_size=1, rank=rank, world_size=2).batches(), 10) for rank in (0, 1)]
    assert [numbers(a) + numbers(b) for a, b in zip(*ranks, strict=True)] == [numbers(step) for step in whole]


def test_margins_move_sides_out_and_stop_at_the_edge(tmp_path, encoded, record, write_shard):
    boxes = [[0.5, 0.5, 0.6, 0.6], [0.0, 0.01, 1.0, 0.99], [-0.3, 0.2, 0.4, 1.7]]
    regions = [{**record()["bbox_info"][0], "bbox": box} for box in boxes]
    write_shard(tmp_path / "a.tar", [(encoded(), record(bbox_info=regions))])
    steps = take(load(tmp_path, batch_size=1, box_margin=8.0, image_size=32).batches(), 40)
    moved = torch.stack([batch.boxes for (batch,) in steps]) - torch.tensor(boxes)
    out = moved * torch.tensor([-1, -1, 1, 1])
    assert out.min() >= 0 and out[:, 0].max() <= 8 / 32 and out[:, 0].min(0).values.max() < 0.05 < 0.2 < out[:, 0].max()
    assert out[:, 1, [0, 2]].max() == 0 and out[:, 1, 1].max() <= 0.01 + 1e-6, "at the edge"
    assert out[:, 2, [0, 3]].max() == 0, "beyond the edge"
    (tight,) = next(load(tmp_path, batch_size=1).batches())
    torch.testing.assert_close(tight.boxes, torch.tensor(boxes))


def test_examples_come_in_file_order_and_never_change(good):
    shown = list(examples(str(good), image_size=32, data=replace(DATA, negatives=2)))
    assert [example.short for example in shown] == [f"a photo of mug {number}" for number in range(27)]
    assert shown[0].region_texts == ["a red mug"] and shown[0].hard_texts == [
        ["a red mug", "a green mug", "a blue mug"]
    ]
    assert len(list(examples(str(good), image_size=32, limit=5))) == 5


@pytest.mark.parametrize("indexed", [False, True], ids=["new", "indexed"])
def test_a_damaged_shard_gives_its_readable_part_and_is_counted(
    tmp_path, caplog, encoded, record, write_shard, indexed
):
    path = write_shard(tmp_path / "a.tar", [(encoded(), record(number)) for number in range(8)])
    path.write_bytes(path.read_bytes()[:-15_000])
    if indexed:
        index(path)
    ours = load(tmp_path, batch_size=2)
    assert ours.counts == {causes.DAMAGED_SHARD: 1} and 1 <= ours.steps_per_epoch < 4
    take(ours.batches(), 4)
    shown = list(examples(str(tmp_path), image_size=8, counts=(counts := Counter())))
    assert counts == {causes.DAMAGED_SHARD: 1} and 2 <= len(shown) < 8
    assert [line.split("a.tar: ")[1][:17] for line in caplog.messages] == ["damaged at byte 1"] * 2


def test_damage_is_noticed_in_spite_of_img2dataset_s_count(tmp_path, encoded, record, write_shard):
    path = write_shard(tmp_path / "a.tar", [(encoded(), record(number)) for number in range(8)])
    path.write_bytes(path.read_bytes()[:-15_000])
    (tmp_path / "a_stats.json").write_text('{"successes": 8}')
    shown = list(examples(str(tmp_path), image_size=8, counts=(counts := Counter())))
    assert counts == {causes.DAMAGED_SHARD: 1} and len(shown) < 8


@pytest.mark.parametrize("processes", [0, 1])
def test_a_jpeg_that_the_decoder_refuses_twice_is_replaced(tmp_path, encoded, record, write_shard, processes):
    broken = bytearray(encoded(64, 48))
    broken[200:260] = bytes(60)  # in the Huffman tables
    with pytest.raises(ValueError, match="extraneous bytes"):
        simplejpeg.decode_jpeg(bytes(broken), strict=False)
    write_shard(tmp_path / "a.tar", [(bytes(broken), record(0)), *((encoded(), record(n)) for n in range(1, 8))])
    ours = load(tmp_path, batch_size=8, workers=processes)
    (batch,) = next(ours.batches())
    assert len(batch.image) == 8 and ours.counts[causes.CORRUPT_IMAGE] >= 1


def test_a_set_of_bad_records_only_ends_with_their_causes(tmp_path, encoded, write_shard):
    write_shard(tmp_path / "a.tar", [(encoded(), {})] * 4)
    with pytest.raises(RuntimeError, match=r"no good sample in 100 tries; causes: \{'no text': 100\}"):
        next(load(tmp_path).batches())


def test_a_set_smaller_than_a_global_batch_is_refused(good):
    with pytest.raises(ValueError, match="holds 27 samples, fewer than one global batch of 8 x 4"):
        load(good, batch_size=8, world_size=4)


def test_too_little_shared_memory_is_noticed_at_the_start(good, monkeypatch):
    state = SimpleNamespace(f_bavail=1, f_frsize=4096)
    monkeypatch.setattr(workers.os, "statvfs", lambda path: state)
    load(good)
    with pytest.raises(ValueError, match=r"2 workers need .* of shared memory.*0 free.*--data.workers"):
        load(good, workers=2)


def test_the_model_s_random_numbers_are_left_alone(good):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    next(load(good).batches())
    assert torch.equal(torch.rand(1), expected)


TRAINS = """
import os, sys
from fgclip_fast.config import Data
from fgclip_fast.data.loader import Loader
from fgclip_fast.inputs.tokenizer import Tokenizer

data = Data(train=sys.argv[1], workers=1, decoder="cpu")
next(Loader(data, image_size=32, batch_size=4, seed=0, tokenizer=Tokenizer()).batches())
children = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()
print(*children, *(pid for child in children for pid in open(f"/proc/{child}/task/{child}/children").read().split()))
os.kill(os.getpid(), 9)
"""


def runs(process):
    try:
        return (process / "stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc")
def test_a_killed_process_takes_its_workers_with_it(good):
    process = subprocess.run([sys.executable, "-c", TRAINS, str(good)], stdout=subprocess.PIPE, timeout=300)
    left = [Path("/proc", pid) for pid in process.stdout.decode().split()]
    assert process.returncode == -9 and len(left) >= 2  # the fork server and a worker
    for _ in range(300):
        left = list(filter(runs, left))
        if not left:
            break
        time.sleep(0.1)
    assert not left


def memory_and_files():
    """Bytes that this process and its workers hold, and their open files."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    everyone = [Path("/proc") / number for number in (str(os.getpid()), *children)]
    pages = sum(int((one / "statm").read_text().split()[1]) for one in everyone)
    return pages * os.sysconf("SC_PAGE_SIZE"), sum(len(os.listdir(one / "fd")) for one in everyone)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("workers", [0, 1])
def test_memory_and_open_files_stay_flat_over_100_000_steps(
    tmp_path, monkeypatch, encoded, record, write_shard, workers
):
    monkeypatch.setattr(logging.root.manager, "disable", logging.WARNING)  # pytest keeps each message
    image = encoded(16, 16)
    for number in range(2000):
        write_shard(tmp_path / f"{number:04d}.tar", [(image, record(number)), (b"broken", record(number))])
    loader = load(tmp_path, batch_size=1, image_size=8, workers=workers, lanes=1, window=4)
    held = []
    batches = loader.batches()
    for step in range(1, 100_001):
        next(batches)
        if step in (20_000, 100_000):
            held.append(memory_and_files())
    batches.close()
    (memory, files), (memory_after, files_after) = held
    assert memory_after - memory < 20e6 and files_after <= files + 2
