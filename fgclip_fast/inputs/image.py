"""Images as the model takes them: squashed to a square, three bytes a pixel until the device normalises them."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fgclip_fast.inputs.image_cost import FORMATS, check_file, check_size
from fgclip_fast.inputs.orientation import orientation, upright, upright_size

MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of CLIP's training pixels: red, green, blue, each from 0 to 1."""
STD = (0.26862954, 0.26130258, 0.27577711)
"""Their standard deviation."""

ImageInput = str | Path | Image.Image | Tensor | np.ndarray
"""An image as users give it: a file, a PIL image (its EXIF orientation counts), a uint8 Tensor[3, H, W], or a uint8
NumPy array [H, W, 3] or [H, W]."""


class Transform:
    """Squash any image to ``size`` × ``size``, bicubic with antialiasing, as the released preprocessing does.

    The aspect ratio is not kept and nothing is cropped, so boxes as fractions of the image stay valid. Files and PIL
    images with an EXIF orientation are turned upright first. Training and evaluation use the same transform.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: ImageInput) -> Tensor:
        """Return the image as a uint8 Tensor[3, size, size].

        Args:
            image: as :data:`ImageInput` says. Files, PIL images and arrays are squashed by Pillow, tensors by
                :func:`squash`, which differs from it by at most 2 of 255.

        Raises:
            ValueError: a tensor of another shape or dtype, another type of object, a file that cannot be decoded, or
                pixels whose white level :func:`rgb` does not know.
            FileNotFoundError, PIL.UnidentifiedImageError: as raised by Pillow.
        """
        if isinstance(image, Tensor):
            if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
                raise ValueError(f"image: a tensor must be uint8 [3, H, W], got {image.dtype} {list(image.shape)}")
            return squash(image, self.size)
        pil = read(image) if isinstance(image, str | Path) else rgb(_checked(image))
        squashed = pil.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(squashed)).permute(2, 0, 1).contiguous()


def squash(image: Tensor, size: int) -> Tensor:
    """Resize to a square as PIL's ``resize((size, size), BICUBIC)`` does, to at most 2 of 255.

    Each of the two passes rounds to bytes, so their order matters. Pillow 13 resizes the rows of tall images first,
    torch always the columns.

    Args:
        image: uint8 Tensor[3, H, W]; channels last is the faster memory format.

    Returns:
        uint8 Tensor[3, size, size], contiguous; ``image`` itself where it has that form already.
    """
    height, width = image.shape[-2:]
    if height > size and 2 * (width - size) < height - size:
        image = F.interpolate(image[None], (size, width), mode="bicubic", antialias=True)[0]
    if image.shape[-2:] != (size, size):
        image = F.interpolate(image[None], (size, size), mode="bicubic", antialias=True)[0]
    return image.contiguous()


def read(path: str | Path) -> Image.Image:
    """Read an image file, in RGB as :func:`rgb` makes it.

    Raises:
        ValueError: it cannot be decoded, or would take too long or too much memory; the message names the file.
        FileNotFoundError, PIL.UnidentifiedImageError: as raised by Pillow; also for a format that it leaves to others.
    """
    with _named_in_errors(path):
        encoded = Path(path).read_bytes()
        check_file(encoded)
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as opened:
            check_size(*opened.size)
            return rgb(opened)


class UnknownRange(ValueError):
    """Pixels without a known white level: floating-point numbers, or integers beyond 16 bits."""


def rgb(image: Image.Image) -> Image.Image:
    """Convert to 8 bits each of red, green and blue, and turn upright as its EXIF orientation says.

    16-bit grey keeps its high byte, where Pillow's ``convert`` clips. The result carries no orientation that would turn
    it once more.

    Raises:
        UnknownRange: pixels are floating-point numbers, or integers beyond 16 bits.
    """
    image.load()  # a PNG's orientation may stand behind its pixels
    note = orientation(image)
    if image.mode == "F":
        raise UnknownRange("pixels must be integers, got floating-point numbers of unknown range; save them as 8 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = Image.fromarray(_high_byte(np.asarray(image)))
    return upright(image.convert("RGB"), note)


def _high_byte(grey: np.ndarray) -> np.ndarray:
    """uint8 [H, W], reduced as Pillow reduces 16-bit colour; mode I is how Pillow holds 16 bits of some formats."""
    low, high = grey.min(initial=0), grey.max(initial=0)
    if low < 0 or high > 65535:
        raise UnknownRange(f"pixels must be integers of at most 16 bits, got {low} to {high}; save them as 8 bits")
    return (grey >> 8).astype(np.uint8)


def width_and_height(image: ImageInput) -> tuple[int, int]:
    """Size of an image in pixels, upright as its EXIF orientation says."""
    if isinstance(image, Tensor):
        return image.shape[-1], image.shape[-2]
    if isinstance(image, str | Path):
        with _named_in_errors(image), Image.open(image, formats=FORMATS) as opened:
            return upright_size(opened.size, orientation(opened))
    picture = _checked(image)
    return upright_size(picture.size, orientation(picture))


@contextmanager
def _named_in_errors(path: str | Path) -> Iterator[None]:
    """Turn Pillow's errors for a broken file, of any type and seldom with its name, into a ValueError with it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except UnidentifiedImageError:
        raise UnidentifiedImageError(f"cannot identify image file {str(path)!r}") from None
    except Exception as error:
        raise ValueError(f"image: {path} cannot be read: {str(error) or type(error).__name__}") from error


def _checked(image: object) -> Image.Image:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
            raise ValueError(f"image: an array must be uint8 [H, W, 3] or [H, W], got {image.dtype} {[*image.shape]}")
        return Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise ValueError(f"image: must be a path, a PIL image, a uint8 tensor or array, got {type(image).__name__}")
    return image


def normalize(image: Tensor, out: Tensor | None = None) -> Tensor:
    """Apply CLIP's normalisation, (x / 255 − mean) / std, on the device of ``image``.

    Args:
        image: Tensor[..., 3, H, W], uint8.
        out: where the result is written, Tensor[..., 3, H, W] of any floating-point dtype and strides.

    Returns:
        ``out``, or a Tensor[..., 3, H, W], fp32.
    """
    # A constant that is made during a trace (export, compile) belongs to that trace, so it is not kept.
    traced = torch.compiler.is_compiling() or type(image) is not Tensor
    channels = _channels.__wrapped__ if traced else _channels
    scale = channels(tuple(1 / (255 * std) for std in STD), image.device)
    shift = channels(tuple(-mean / std for mean, std in zip(MEAN, STD, strict=True)), image.device)
    return torch.addcmul(shift, image, scale, out=out)


# Kept on the device, and filled there: for a copy to a GPU the host would wait.
@cache
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.cat([torch.full((1, 1, 1), value, device=device) for value in values])
