"""A batch: rows in order, nothing padded, equal ids for equal texts."""

from itertools import pairwise

import pytest
import torch

from fgclip_fast.inputs.batch import Batch, Example, make_batch
from fgclip_fast.inputs.tokenizer import Tokenizer

TOKENIZER = Tokenizer()


def example(short="a photo of a mug", long="a long text", regions=0, hard=(), value=0):
    """An example whose regions have the texts "region 0", …, and of which region i has hard[i] negatives."""
    hard_texts = [["positive", *(f"negative {k}" for k in range(n))] if n else [] for n in hard]
    image = torch.full((3, 4, 4), value, dtype=torch.uint8)
    boxes = torch.rand(regions, 4)
    return Example(image, short, long, boxes, [f"region {i}" for i in range(regions)], hard_texts)


def rows(batch):
    ends = batch.texts.offsets.tolist()
    return [TOKENIZER.decode(batch.texts.token[first:last]) for first, last in pairwise(ends)]


def test_rows_are_short_region_hard_long():
    given = [example(regions=2, hard=(1, 0)), example("b", "c", value=9), example("d", "e", regions=1, hard=(2,))]
    batch = make_batch(given, TOKENIZER)
    assert rows(batch) == [
        "a photo of a mug", "b", "d",
        "region 0", "region 1", "region 0",
        "positive", "negative 0", "positive", "negative 0", "negative 1",
        "a long text", "c", "e",
    ]  # fmt: skip
    assert batch.texts.shorts == 11 and batch.image.shape == (3, 3, 4, 4) and batch.image[1].unique() == 9
    assert batch.image_index.tolist() == [0, 0, 2]
    assert torch.equal(batch.boxes, torch.cat([e.boxes for e in given]))
    assert batch.hard_region.tolist() == [0, 2] and batch.hard_offsets.tolist() == [0, 2, 5]


def test_dtypes_are_the_documented_ones():
    batch = make_batch([example(regions=1, hard=(1,))], TOKENIZER)
    parts = {**batch._asdict(), **batch.texts._asdict()}
    types = {name: value.dtype for name, value in parts.items() if isinstance(value, torch.Tensor)}
    assert types == {
        "image": torch.uint8, "token": torch.int32, "offsets": torch.int64, "boxes": torch.float32,
        "image_index": torch.int64, "hard_region": torch.int64, "hard_offsets": torch.int64, "text_ids": torch.int64,
    }  # fmt: skip


def test_images_without_regions_give_empty_tensors():
    batch = make_batch([example(), example()], TOKENIZER)
    assert batch.boxes.shape == (0, 4) and batch.image_index.shape == batch.hard_region.shape == (0,)
    assert batch.hard_offsets.tolist() == [0] and batch.texts.shorts == 2 and len(rows(batch)) == 4
    assert batch.boxes.dtype == torch.float32 and batch.image_index.dtype == torch.int64


def test_long_rows_may_be_longer_than_short_ones():
    batch = make_batch([example("mug " * 300, "mug " * 300)], TOKENIZER)
    assert batch.texts.offsets.diff().tolist() == [77, 248]
    assert batch.texts.token[76] == batch.texts.token[-1] == 49407


def test_ids_are_equal_where_tokens_are():
    first = make_batch([example("A  mug", "a mug"), example("a mug", "a cup"), example("a pot")], TOKENIZER)
    second = make_batch([example("a pot", "a mug")], TOKENIZER)
    a, b, pot, long_a, cup, _ = first.text_ids.tolist()
    assert a == b == long_a and len({a, pot, cup}) == 3
    assert second.text_ids.tolist() == [pot, a], "the same in every batch and process"
    assert min(first.text_ids) >= 0


@pytest.mark.parametrize("packing", ["none", "prefix-tree"])
def test_a_batch_moves_with_all_its_tensors(packing):
    batch = make_batch([example(regions=1, hard=(1,))], TOKENIZER, packing)
    moved = batch.to("meta")
    assert isinstance(moved, Batch) and type(moved.texts.tree) is type(batch.texts.tree)
    assert {x.device.type for x in [*moved, *moved.texts] if isinstance(x, torch.Tensor)} == {"meta"}
    if batch.texts.tree is not None:
        assert {x.device.type for x in moved.texts.tree} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_pinned_memory_copies_beside_the_gpu():
    batch = make_batch([example(regions=1, hard=(1,))], TOKENIZER, "prefix-tree").pin_memory()
    assert batch.texts.token.is_pinned() and batch.texts.tree.token.is_pinned()
    assert torch.equal(batch.to("cuda", non_blocking=True).texts.token.cpu(), batch.texts.token)


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="at least one example"):
        make_batch([], TOKENIZER)
