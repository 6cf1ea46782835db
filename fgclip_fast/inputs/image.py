"""Images as the model takes them: squashed to a square, three bytes a pixel until the device normalises them."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
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
            ValueError: a tensor of another shape or dtype, or another type of object.
            FileNotFoundError, PIL.UnidentifiedImageError: as Pillow raises them.
        """
        if isinstance(picture, Tensor):
            return self._squash(picture)
        if isinstance(picture, str | Path):
            with Image.open(picture) as opened:
                return self(opened.convert("RGB"))
        squashed = _checked(picture).convert("RGB").resize((self.size, self.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(squashed)).permute(2, 0, 1).contiguous()

    def _squash(self, picture: Tensor) -> Tensor:
        if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
            raise ValueError(f"image: a tensor must be uint8 [3, H, W], got {picture.dtype} {list(picture.shape)}")
        if picture.shape[1:] == (self.size, self.size):
            return picture
        return F.interpolate(picture[None], (self.size, self.size), mode="bicubic", antialias=True)[0]


def width_and_height(picture: Picture) -> tuple[int, int]:
    """Size of a picture in pixels; of a file only the header is read."""
    if isinstance(picture, Tensor):
        return picture.shape[-1], picture.shape[-2]
    if isinstance(picture, str | Path):
        with Image.open(picture) as opened:
            return opened.size
    return _checked(picture).size


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
