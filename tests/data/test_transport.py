"""Packed values come out the same, from one piece of shared memory."""

import pickle
from typing import NamedTuple

import torch
from torch import Tensor

from fgclip_fast.data.transport import pack, unpack


class Pair(NamedTuple):
    left: Tensor | None
    right: object


def test_packed_values_come_out_the_same():
    odd = torch.arange(7, dtype=torch.uint8)
    none, one, turned = torch.rand(3, 0, 2), torch.tensor(2.5), torch.arange(12).view(3, 4).t()
    value = Pair(odd, [Pair(none, None), (one, "text"), turned, 7])
    packed = pack(value)
    assert packed.buffer.is_shared() and packed.buffer.dtype == torch.uint8
    again = unpack(packed)
    assert type(again) is Pair and type(again.right[0]) is Pair and again.right[0].right is None
    assert again.right[1][1] == "text" and again.right[3] == 7
    found = again.left, again.right[0].left, again.right[1][0], again.right[2]
    for ours, given in zip(found, (odd, none, one, turned), strict=True):
        assert ours.dtype == given.dtype and torch.equal(ours, given)


def test_only_the_buffer_holds_tensors():
    packed = pack([torch.rand(100, 100)] * 50)
    assert len(pickle.dumps(packed.rest)) < 10_000


def test_values_without_tensors_are_packed_too():
    assert unpack(pack([])) == [] and unpack(pack(Pair(None, "x"))) == Pair(None, "x")
