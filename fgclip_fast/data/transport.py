"""A worker's tensors as one: each that travels alone takes a file descriptor, and a process may hold about a thousand.

A batch in 16 micro-batches with their prefix trees is 350 tensors, and a few batches are under way at any time.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fgclip_fast.inputs.batch import replace_leaves

_ALIGNED = 64  # bytes; any type may be viewed there


class Packed(NamedTuple):
    """All tensors of a value in one, and the rest of it."""

    buffer: Tensor
    """uint8 [N], in shared memory."""
    rest: "_Rest"


def pack(value: Any) -> Packed:
    """Copies the tensors of nested tuples and lists into one piece of shared memory."""
    tensors: list[Tensor] = []
    ends = [0]

    def place(tensor: Tensor) -> _Slot:
        start = -(-ends[-1] // _ALIGNED) * _ALIGNED
        ends.append(start + tensor.nbytes)
        tensors.append(tensor)
        return _Slot(start, tensor.dtype, tuple(tensor.shape))

    rest = replace_leaves(value, Tensor, place)
    buffer = torch.empty(ends[-1], dtype=torch.uint8).share_memory_()
    for tensor, end in zip(tensors, ends[1:], strict=True):
        flat = tensor.contiguous().reshape(-1)
        buffer[end - tensor.nbytes : end].copy_(flat.view(torch.uint8))
    return Packed(buffer, _Rest(rest))


def unpack(packed: Packed) -> Any:
    """The value again, its tensors lying in the buffer."""

    def take(slot: _Slot) -> Tensor:
        size = slot.dtype.itemsize * torch.Size(slot.shape).numel()
        return packed.buffer[slot.start : slot.start + size].view(slot.dtype).reshape(slot.shape)

    return replace_leaves(packed.rest.value, _Slot, take)


class _Slot:
    """Where a tensor lies."""

    def __init__(self, start: int, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self.start, self.dtype, self.shape = start, dtype, shape


class _Rest:
    """A value with slots for tensors; no tuple, so that pinning memory does not look into it."""

    def __init__(self, value: Any) -> None:
        self.value = value
