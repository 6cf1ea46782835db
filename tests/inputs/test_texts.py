"""Texts: two paths end to end, packed or not, and the number of tokens that the tower computes for them."""

import pytest
import torch

from fgclip_fast.inputs.texts import Texts, join
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.model.text import pad
from fgclip_fast.ops.tree import LONG_LENGTH

TOKENIZER = Tokenizer()
SHORT, LONG = ["a red mug", "a red mug on a table", "a dog"], ["a long text about a mug", "a dog"]


def texts(short=SHORT, long=LONG):
    return join(TOKENIZER(short), TOKENIZER(long, LONG_LENGTH))


def test_the_long_path_follows_the_short_one():
    joined = texts()
    assert joined.shorts == 3 and joined.tree is None
    rows = [joined.token[first:last] for first, last in zip(joined.offsets[:-1], joined.offsets[1:], strict=True)]
    assert [TOKENIZER.decode(row) for row in rows] == [*SHORT, *LONG]
    assert texts(SHORT, []).shorts == len(texts(SHORT, []).offsets) - 1 == 3
    assert texts([], LONG).shorts == 0


def test_padded_texts_count_each_path_at_its_longest():
    joined = texts()
    short = pad(joined.token, joined.offsets[:4])
    long = pad(joined.token, joined.offsets[3:])
    assert joined.processed_tokens == short.numel() + long.numel() == 3 * 8 + 2 * 8
    assert texts([], LONG).processed_tokens == long.numel()
    assert texts([], []).processed_tokens == 0


@pytest.mark.parametrize("packing", ["padding-free", "prefix-tree"])
def test_packed_texts_count_the_tokens_of_their_tree(packing):
    packed = texts().packed(packing)
    assert packed.processed_tokens == len(packed.tree.token) == 64
    assert packed.packed("none").tree is None


def test_a_tree_moves_with_its_texts():
    moved = texts().packed().to("meta")
    assert isinstance(moved, Texts) and moved.tree is not None
    assert {x.device.type for x in [moved.token, moved.offsets, *moved.tree]} == {"meta"}
    assert texts().to(torch.device("meta")).tree is None
