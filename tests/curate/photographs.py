"""Photographs that other packages ship, with captions and boxes written by hand."""

import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from PIL import Image


class Photograph(NamedTuple):
    """A photograph of a package."""

    package: str
    file: str
    size: tuple[int, int]
    """Width and height, pixels."""
    caption: str
    boxes: dict[str, tuple[float, float, float, float]]
    """Noun → xyxy in fractions, of things that the caption names and a detector of COCO's classes knows."""


PHOTOGRAPHS = {
    "astronaut": Photograph(
        "skimage", "data/astronaut.png", (512, 512),
        "A smiling woman in an orange suit sits in front of a flag and a model of a white rocket.",
        {"woman": (0.03, 0.03, 0.72, 1.0)},
    ),
    "cat": Photograph(
        "skimage", "data/chelsea.png", (451, 300),
        "A brown striped cat with green eyes looks past the camera.",
        {"cat": (0.0, 0.0, 0.9, 1.0)},
    ),
    "coffee": Photograph(
        "skimage", "data/coffee.png", (600, 400),
        "A small red cup stands on a round red saucer with a metal spoon, on a table of brown wood.",
        {"cup": (0.29, 0.04, 0.7, 0.77)},
    ),
    "motorcycle": Photograph(
        "skimage", "data/motorcycle_left.png", (640, 432),
        "A red motorcycle with a black seat stands in a garage, before a grey shelf and a wooden bench.",
        {"motorcycle": (0.13, 0.15, 0.93, 0.92)},
    ),
    "officer": Photograph(
        "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", (512, 600),
        "An old officer with a black tie and a white cap stands before a flag.",
        {"officer": (0.02, 0.04, 1.0, 1.0)},
    ),
}  # fmt: skip
LONGEST = 640  # pixels of a side


def is_there(name: str) -> bool:
    """True if the package of a photograph is installed."""
    return find_spec(PHOTOGRAPHS[name].package) is not None


def jpeg_of(name: str) -> bytes:
    """A photograph as JPEG, of its size."""
    photograph = PHOTOGRAPHS[name]
    spec = find_spec(photograph.package)
    assert spec is not None and spec.origin is not None
    image = Image.open(Path(spec.origin).parent / photograph.file).convert("RGB")
    image.thumbnail((LONGEST, LONGEST))
    assert image.size == photograph.size, (name, image.size)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def write_photograph(folder: Path, name: str, image: bytes) -> None:
    """Write an image with the caption of a photograph beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jpg").write_bytes(image)
    (folder / f"{name}.json").write_text(json.dumps({"caption": PHOTOGRAPHS[name].caption}))
