"""Keep the memory that a process frees: on a CPU each step then finds the pages of the step before.

By default glibc returns every large tensor to the system and takes it anew, and the system clears each page of 4 KiB
at its first touch: 87,000 page faults in a stage-2 step of four images, a fifth of its time in bf16.
"""

import ctypes

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_GROWTH = 64 * 2**20  # bytes


def keep_freed_memory(device: str) -> None:
    """Have glibc's heap hold all tensors, and never shrink; do nothing with another C library.

    The process then keeps its peak of memory until it ends.

    Args:
        device: type of the model's device; nothing is done for any but "cpu", where the tensors of a step lie.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if device == "cpu" and mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_TOP_PAD, _GROWTH)


def return_large_tensors() -> None:
    """Have tensors beyond 32 MiB come from the system and go back to it again, as in a process that asks for nothing.

    Smaller ones glibc keeps by itself: its threshold rises to 32 MiB as large tensors are freed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 2**16)
        mallopt(_MMAP_THRESHOLD, 2**25)
