"""Copies between the host and the device that make neither wait for the other."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fgclip_fast.inputs.batch import Batch, replace_leaves


class HostCopy:
    """The values of a tensor, copied to the host when the device gets there, and read later.

    Of a tensor on a GPU the copy is queued on the current stream, into page-locked memory. Values on the CPU are not
    copied, so they may still change until they are read.

    Args:
        source: Tensor[...], kept until it is read.
    """

    def __init__(self, source: Tensor) -> None:
        self._source = self._values = source
        self._copied: torch.cuda.Event | None = None
        if source.is_cuda:
            self._values = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
            self._values.copy_(source, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(source.device))

    def read(self) -> Any:
        """Wait until the values are copied, and return them as nested lists, or as a number for Tensor[]."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._values.tolist()


class BatchCopy:
    """Copies batches to a device; to a GPU on a stream of its own, while the step before is computed.

    Args:
        device: The model's device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, micro_batches: list[Batch]) -> list[Batch]:
        """Queue the copies; what is queued on the current stream from now on finds them done."""
        if self._stream is None:
            return [batch.to(self._device) for batch in micro_batches]
        with torch.cuda.stream(self._stream):
            moved = [batch.to(self._device, non_blocking=True) for batch in micro_batches]
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        # The memory belongs to the copies' stream, which must not reuse it before the step has read it.
        replace_leaves(moved, Tensor, lambda x: x.record_stream(current))
        return moved


def snapshot(values: Any) -> Any:
    """Copy the tensors in nested dicts into host memory of their own, and wait until they are there.

    Of a GPU the copies go into page-locked memory, which torch keeps for the next snapshot.

    Args:
        values: a tensor, or dicts of tensors, dicts and other values, which are not copied.
    """
    devices: set[torch.device] = set()
    copies = _snapshot(values, devices)
    for device in devices:
        torch.cuda.current_stream(device).synchronize()
    return copies


def _snapshot(values: Any, devices: set[torch.device]) -> Any:
    if isinstance(values, Mapping):
        return {name: _snapshot(value, devices) for name, value in values.items()}
    if not isinstance(values, Tensor):
        return values
    source = values.detach()
    if not source.is_cuda:
        return source.clone(memory_format=torch.contiguous_format)
    devices.add(source.device)
    copy = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
    return copy.copy_(source, non_blocking=True)
