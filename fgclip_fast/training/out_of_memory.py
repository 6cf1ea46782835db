"""Name the way out when a step does not fit into memory."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def explained(images: int) -> Iterator[None]:
    """Run steps; one that does not fit ends with a sentence instead of a traceback.

    Args:
        images: images of a pass through the network, of this process.

    Raises:
        ValueError: a step ran out of memory.
    """
    try:
        yield
    except RuntimeError as error:
        reason = next((line for line in str(error).splitlines() if _tells_of_memory(line)), None)
        if reason is None and not isinstance(error, torch.OutOfMemoryError):
            raise
        way_out = f"pass --micro-batch-size {math.ceil(images / 2)}, or auto, with the same gradient"
        if images == 1:
            way_out = "pass --model.recompute blocks, or take a smaller model"
        raise ValueError(
            f"micro_batch_size must let a step fit into memory, and a pass of {images} images does not: {way_out} "
            f"({reason or 'out of memory'})"
        ) from error


def _tells_of_memory(line: str) -> bool:
    return "out of memory" in line or "can't allocate memory" in line or "not enough memory" in line
