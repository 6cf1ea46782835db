"""Where kernels run."""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def on_own_device(call: Callable[..., Result]) -> Callable[..., Result]:
    """``call`` with the device of its first tensor current: Triton launches on the current one, whatever it gets."""

    @wraps(call)
    def run(first: Tensor, *others, **options) -> Result:
        if not torch.cuda.is_available():  # interpreted, or traced with tensors of a device that is not here
            return call(first, *others, **options)
        with torch.cuda.device_of(first):
            return call(first, *others, **options)

    return run
