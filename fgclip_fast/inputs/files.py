"""Image files as one array of pixels; those that cannot be read are left out and named."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fgclip_fast.inputs.image import Transform


class Decoded(NamedTuple):
    """The images of some files; an array crosses a pipe as bytes, where a tensor takes a file descriptor."""

    pixels: np.ndarray
    """uint8 [n, 3, S, S]."""
    read: list[str]
    """Names of the n files."""
    refused: list[str]
    """Why each of the others cannot be read, with its name."""


def decode_files(names: Sequence[str], size: int) -> Decoded:
    """Read files and squash each to a square of ``size`` pixels, as :class:`fgclip_fast.inputs.Transform` does."""
    transform, pixels, read, refused = Transform(size), [], [], []
    for name in names:
        try:
            pixels.append(transform(name).numpy())
        except (OSError, ValueError) as error:
            refused.append(f"cannot read {name} as an image: {error}")
        else:
            read.append(name)
    return Decoded(np.stack(pixels) if pixels else np.empty((0, 3, size, size), np.uint8), read, refused)
