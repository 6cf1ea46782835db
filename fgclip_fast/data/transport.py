"""Send a worker's tensors as one: each tensor sent alone takes a file descriptor, of which a process has about 1,000.

A batch in 16 micro-batches with their prefix trees is 350 tensors, and several batches are on their way at a time.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fgclip_fast.inputs.batch import replace_leaves

_ALIGNMENT = 64  # bytes; a tensor of any dtype may be viewed there


class SharedTensors(NamedTuple):
    """A value whose tensors are laid end to end in one buffer."""

    buffer: Tensor
    """uint8 [N], in shared memory."""
    rest: "_Rest"


def pack(value: Any) -> SharedTensors:
    """Copy the tensors in nested tuples and lists into one piece of shared memory."""
    tensors: list[Tensor] = []
    ends = [0]

    def place(tensor: Tensor) -> _Slot:
        start = -(-ends[-1] // _ALIGNMENT) * _ALIGNMENT
        ends.append(start + tensor.nbytes)
        tensors.append(tensor)
        return _Slot(start, tensor.dtype, tuple(tensor.shape))

    rest = replace_leaves(value, Tensor, place)
    buffer = torch.empty(ends[-1], dtype=torch.uint8).share_memory_()
    for tensor, end in zip(tensors, ends[1:], strict=True):
        flat = tensor.contiguous().reshape(-1)
        buffer[end - tensor.nbytes : end].copy_(flat.view(torch.uint8))
    return SharedTensors(buffer, _Rest(rest))


def unpack(packed: SharedTensors) -> Any:
    """Return the value that was packed; its tensors are views of the buffer."""

    def take(slot: _Slot) -> Tensor:
        size = slot.dtype.itemsize * torch.Size(slot.shape).numel()
        return packed.buffer[slot.start : slot.start + size].view(slot.dtype).reshape(slot.shape)

    return replace_leaves(packed.rest.value, _Slot, take)


class _Slot:
    """Position, dtype and shape of a tensor in the buffer."""

    def __init__(self, start: int, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self.start, self.dtype, self.shape = start, dtype, shape


class _Rest:
    """The value with slots for its tensors; a class, since pinning memory looks into tuples."""

    def __init__(self, value: Any) -> None:
        self.value = value
