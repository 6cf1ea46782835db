"""A model whose embeddings are planted: the colour of an image, or of the middle of a box, and the text itself."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

SIDE = 32
STEP = 10
"""Image n is of the grey level n * STEP."""


class Planted:
    """Stands for an FG-CLIP.

    Args:
        images: grey level // STEP → embedding.
        texts: text → embedding; an unknown text is an error, so no prompt and no change of a caption goes unnoticed.
    """

    device = torch.device("cpu")
    config = SimpleNamespace(vision=SimpleNamespace(image_size=SIDE, patch_size=8, grid=4), projection=4)
    training = False

    def __init__(self, images: Mapping[int, list[float]], texts: Mapping[str, list[float]]) -> None:
        self.images, self.texts = images, texts
        self.kinds: set[str] = set()
        self.asked: list[str] = []
        self.decoded: list[str] = []

    def transform(self, image):
        if isinstance(image, Path):
            self.decoded.append(image.name)
        with Image.open(image) if isinstance(image, Path) else image as opened:
            pixels = np.array(opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def _of_levels(self, levels):
        return torch.tensor([self.images[int(level) // STEP] for level in levels], dtype=torch.float32)

    def encode_image(self, pixels):
        return self._of_levels(pixels[:, 0, SIDE // 2, SIDE // 2])

    def encode_regions(self, pixels, boxes, unit="pixel"):
        assert unit == "fraction"
        levels = [
            image[0, int((y1 + y2) / 2 * SIDE), int((x1 + x2) / 2 * SIDE)]
            for image, own in zip(pixels, boxes, strict=True)
            for x1, y1, x2, y2 in own.tolist()
        ]
        return self._of_levels(levels) if levels else torch.empty(0, self.config.projection)

    def encode_image_and_regions(self, pixels, boxes, unit="pixel"):
        return self.encode_image(pixels), self.encode_regions(pixels, boxes, unit)

    def encode_dense(self, pixels):
        middles = pixels[:, 0, 4::8, 4::8]
        rows = self._of_levels(middles.flatten().tolist())
        return F.normalize(rows.unflatten(0, (len(pixels), 4, 4)), dim=-1)

    def encode_text(self, texts, kind="short"):
        self.kinds.add(kind)
        self.asked += texts
        return torch.tensor([self.texts[text] for text in texts], dtype=torch.float32)

    def eval(self):
        return self

    def train(self, mode=True):
        return self


def grey(path: Path, level: int, size: tuple[int, int] = (48, 40)) -> None:
    """Write an image of one grey level, n * STEP."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level * STEP,) * 3).save(path, "PNG")


def unit(axis: int, width: int = 4) -> list[float]:
    """A unit vector along an axis."""
    return [float(i == axis) for i in range(width)]
