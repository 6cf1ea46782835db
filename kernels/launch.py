"""Prepare a launch: the current device, and rows that a kernel can read."""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def on_own_device(call: Callable[..., Result]) -> Callable[..., Result]:
    """Make the device of the first tensor current during ``call``: Triton launches on the current device."""

    @wraps(call)
    def run(first: Tensor, *others, **options) -> Result:
        if not torch.cuda.is_available():  # in the interpreter, or traced with fake tensors
            return call(first, *others, **options)
        with torch.cuda.device_of(first):
            return call(first, *others, **options)

    return run


def rows(x: Tensor) -> Tensor:
    """Return ``x``, copied only if the values of a row are not adjacent in memory."""
    return x if x.stride(-1) == 1 else x.contiguous()
