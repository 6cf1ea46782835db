"""Steps that do not fit into memory: take them again in smaller passes, or name the way out."""

import gc
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

log = logging.getLogger("fgclip_fast")
T = TypeVar("T")


class TooLarge(ValueError):
    """A pass through the network does not fit into memory; the message names the way out.

    Args:
        images: images of the pass.
        reason: as the allocator tells it.
    """

    def __init__(self, images: int, reason: str) -> None:
        way_out = f"pass --micro-batch-size {smaller(images)}, or auto, with the same gradient"
        if images == 1:
            way_out = "pass --model.recompute blocks, or take a smaller model"
        rule = f"micro_batch_size must let a step fit into memory, and a pass of {images} images does not"
        super().__init__(f"{rule}: {way_out} ({reason})")
        self.reason = reason


def smaller(images: int) -> int:
    """Images of the next smaller pass to try."""
    return math.ceil(images / 2)


def tried(gradient: Callable[[], T], images: int, *, again: bool) -> T | None:
    """Call what makes the gradient of a step; None if it ran out of memory, and may be tried in smaller passes.

    Args:
        gradient: the forward and backward passes; it may leave a part of the gradient.
        images: images of a pass through the network, of this process.
        again: False raises at once, as for one of several processes: the others wait within the step.

    Raises:
        TooLarge: a pass of one image does not fit, or ``again`` is False.
    """
    try:
        with explained(images):
            return gradient()
    except TooLarge as error:
        if images == 1 or not again:
            raise
        log.warning("a pass of %d images ran out of memory (%s)", images, error.reason)
    # Only here, since the error holds the frames, and they the activations.
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None


@contextmanager
def explained(images: int) -> Iterator[None]:
    """Run steps; one that does not fit ends with a sentence instead of a traceback.

    Args:
        images: images of a pass through the network, of this process.

    Raises:
        TooLarge: a step ran out of memory.
    """
    try:
        yield
    except RuntimeError as error:
        reason = next((line for line in str(error).splitlines() if _tells_of_memory(line)), None)
        if reason is None and not isinstance(error, torch.OutOfMemoryError):
            raise
        raise TooLarge(images, reason or "out of memory") from error


def _tells_of_memory(line: str) -> bool:
    return "out of memory" in line or "can't allocate memory" in line or "not enough memory" in line
