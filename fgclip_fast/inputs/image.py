"""Images as the model takes them: squashed to a square, three bytes a pixel until the device normalises them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of CLIP's training pixels, red, green, blue, of 1."""
STD = (0.26862954, 0.26130258, 0.27577711)
"""Their standard deviation."""

Picture = str | Path | Image.Image | Tensor


class Transform:
    """Squashes any picture to ``size`` × ``size``, bicubic with antialiasing; normalised boxes stay as they are.

    No aspect is kept and nothing is cropped or turned: the released preprocessing, at training and evaluation.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, picture: Picture) -> Tensor:
        """Tensor[3, size, size], uint8, of a path, a PIL image, or a uint8 Tensor[3, H, W].

        Raises:
            ValueError: a tensor of another shape or dtype, another type of object, a file that cannot be decoded, or
                pixels of which :func:`rgb` does not know the range.
            FileNotFoundError, PIL.UnidentifiedImageError: as Pillow raises them.
        """
        if isinstance(picture, Tensor):
            return self._squash(picture)
        if isinstance(picture, str | Path):
            return self(read(picture))
        squashed = rgb(_checked(picture)).resize((self.size, self.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(squashed)).permute(2, 0, 1).contiguous()

    def _squash(self, picture: Tensor) -> Tensor:
        if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
            raise ValueError(f"image: a tensor must be uint8 [3, H, W], got {picture.dtype} {list(picture.shape)}")
        if picture.shape[1:] == (self.size, self.size):
            return picture
        return F.interpolate(picture[None], (self.size, self.size), mode="bicubic", antialias=True)[0]


def read(path: str | Path) -> Image.Image:
    """A picture file, in RGB as :func:`rgb` makes it.

    Raises:
        ValueError: it cannot be decoded; the message names the file.
        FileNotFoundError, PIL.UnidentifiedImageError: as Pillow raises them.
    """
    with _failures_named(path), Image.open(path) as opened:
        return rgb(opened)


class UnknownRange(ValueError):
    """Pixels that do not say what white is."""


def rgb(picture: Image.Image) -> Image.Image:
    """Eight bits each of red, green and blue; of 16-bit grey the high byte, where Pillow's own ``convert`` clips.

    Raises:
        UnknownRange: pixels are floating-point numbers, or integers beyond 16 bits.
    """
    if picture.mode == "F":
        raise UnknownRange("pixels are floating-point numbers, of which 0 to white is not known; save them as 8 bits")
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        picture = Image.fromarray(_high_byte(np.asarray(picture)))
    return picture.convert("RGB")


def _high_byte(grey: np.ndarray) -> np.ndarray:
    """uint8 [H, W], as Pillow reduces 16-bit colour; mode I is how it holds the 16 bits of some formats."""
    low, high = grey.min(initial=0), grey.max(initial=0)
    if low < 0 or high > 65535:
        raise UnknownRange(f"pixels must be integers of 16 bits at most, got {low} to {high}; save them as 8 bits")
    return (grey >> 8).astype(np.uint8)


def width_and_height(picture: Picture) -> tuple[int, int]:
    """Size of a picture in pixels; of a file only the header is read."""
    if isinstance(picture, Tensor):
        return picture.shape[-1], picture.shape[-2]
    if isinstance(picture, str | Path):
        with _failures_named(picture), Image.open(picture) as opened:
            return opened.size
    return _checked(picture).size


@contextmanager
def _failures_named(path: str | Path) -> Iterator[None]:
    """Of a broken file Pillow raises nearly anything, and seldom says which file it was."""
    try:
        yield
    except (FileNotFoundError, UnidentifiedImageError):
        raise
    except Exception as error:
        raise ValueError(f"image: {path} cannot be read: {str(error) or type(error).__name__}") from error


def _checked(picture: object) -> Image.Image:
    if not isinstance(picture, Image.Image):
        raise ValueError(f"image: a path, PIL image or uint8 tensor is needed, got {type(picture).__name__}")
    return picture


def normalize(image: Tensor) -> Tensor:
    """CLIP's normalisation, (x / 255 − mean) / std, on the device of ``image``.

    Args:
        image: Tensor[..., 3, H, W], uint8.

    Returns:
        Tensor[..., 3, H, W], fp32.
    """
    return (image.float() * (1 / 255) - _channels(MEAN, image.device)) / _channels(STD, image.device)


@cache  # a copy to a GPU in every step would make the host wait
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(3, 1, 1)
