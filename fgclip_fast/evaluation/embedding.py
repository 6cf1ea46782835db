"""Embed the images and texts of a suite once each, in parts that several processes divide among them."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip_fast.evaluation.share import Share, parts_of
from fgclip_fast.inputs.boxes import Box
from fgclip_fast.inputs.image import read
from fgclip_fast.model.fgclip import FGCLIP, Kind

Value = TypeVar("Value")

TEXTS = 512
"""Texts of a part."""


class Crop(NamedTuple):
    """A part of an image."""

    path: Path
    box: tuple[int, int, int, int]
    """x1, y1, x2, y2 in pixels; what lies outside the image is black."""


Picture = Path | Crop
"""An image to embed."""


class Embedded(NamedTuple):
    """Embeddings of the images and texts of a suite, fp32 unit rows on the CPU."""

    images: Tensor
    """Tensor[N, D]; zero where the image cannot be read."""
    readable: Tensor
    """Tensor[N], bool."""
    texts: Tensor
    """Tensor[M, D]."""


def embed(
    model: FGCLIP,
    images: Sequence[Picture],
    texts: Sequence[str],
    figures: Callable[[Embedded], Value],
    *,
    kind: Kind = "short",
    batch_size: int,
    share: Share,
) -> Value:
    """Embed images and texts and make figures of them.

    Args:
        model: the model, on its device.
        images: files, each once; sorted, so that the order of a data set does not change the last bits.
        texts: each once, sorted.
        figures: called by the first process.
        kind: the text path.
        batch_size: images a forward pass.
        share: the processes that divide the work.

    Returns:
        The figures, in every process.
    """

    def work(part: tuple[str, range]) -> tuple[Tensor, Tensor]:
        what, rows = part
        if what == "text":
            return embed_texts(model, texts[rows.start : rows.stop], kind), torch.empty(0, dtype=torch.bool)
        return embed_images(model, images[rows.start : rows.stop], batch_size)

    def join(results: list[tuple[Tensor, Tensor]]) -> Value:
        count = len(parts_of(len(images)))
        rows = [row for row, _ in results]
        readable = torch.cat([torch.empty(0, dtype=torch.bool), *(good for _, good in results)])
        return figures(Embedded(_cat(rows[:count]), readable, _cat(rows[count:])))

    parts = [("image", part) for part in parts_of(len(images))]
    parts += [("text", part) for part in parts_of(len(texts), TEXTS)]
    return share.measure(parts, work, join)


def class_vectors(model: FGCLIP, names: Sequence[str], templates: Sequence[str], share: Share) -> Tensor:
    """Embed classes: for each, the unit mean of the unit embeddings of its name in every template.

    Args:
        model: the model, on its device.
        names: of the classes.
        templates: texts with ``{}`` in the place of the name.
        share: the processes that divide the classes.

    Returns:
        Tensor[C, D], fp32 unit rows, on the device of the model.
    """

    def work(part: range) -> Tensor:
        texts = [template.replace("{}", name) for name in names[part.start : part.stop] for template in templates]
        rows = embed_texts(model, texts, "short").unflatten(0, (len(part), len(templates)))
        return F.normalize(rows.mean(dim=1), dim=-1)

    return share.measure(parts_of(len(names)), work, _cat).to(model.device)


def embed_texts(model: FGCLIP, texts: Sequence[str], kind: Kind) -> Tensor:
    """Embed texts: Tensor[N, D], fp32 unit rows on the CPU."""
    return F.normalize(model.encode_text(texts, kind=kind).float(), dim=-1).cpu()


def decode(model: FGCLIP, pictures: Sequence[Picture]) -> list[Tensor | None]:
    """Decode images in threads: uint8 Tensor[3, S, S] each; None for one that cannot be read."""

    def one(picture: Picture) -> Tensor | None:
        try:
            if isinstance(picture, Crop):
                return model.transform(read(picture.path).crop(picture.box))
            return model.transform(picture)
        except (OSError, ValueError):
            return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return list(threads.map(one, pictures))


def embed_images(model: FGCLIP, pictures: Sequence[Picture], batch_size: int) -> tuple[Tensor, Tensor]:
    """Embed images.

    Returns:
        Tensor[N, D], fp32 unit rows on the CPU, zero where an image cannot be read; Tensor[N], bool, where it can.
    """
    pixels = decode(model, pictures)
    readable = torch.tensor([one is not None for one in pixels])
    good = [one for one in pixels if one is not None]
    if not good:
        return torch.empty(len(pictures), 0), readable
    passes = [torch.stack(good[i : i + batch_size]) for i in range(0, len(good), batch_size)]
    found = F.normalize(torch.cat([model.encode_image(own) for own in passes]).float(), dim=-1).cpu()
    rows = torch.zeros(len(pictures), found.shape[1])
    rows[readable] = found
    return rows, readable


def embed_regions(model: FGCLIP, images: Sequence[tuple[Path, Sequence[Box]]], batch_size: int) -> list[Tensor | None]:
    """Embed boxes of images.

    Args:
        model: the model, on its device.
        images: files, each with its boxes.
        batch_size: images a forward pass.

    Returns:
        For each image, Tensor[n, D], fp32 unit rows on the CPU; None for one that cannot be read.
    """
    pixels = decode(model, [image for image, _ in images])
    good = [(one, boxes) for one, (_, boxes) in zip(pixels, images, strict=True) if one is not None]
    rows: list[Tensor] = []
    for start in range(0, len(good), batch_size):
        own = good[start : start + batch_size]
        boxes = [torch.tensor(b, dtype=torch.float32).reshape(-1, 4) for _, b in own]
        found = model.encode_regions(torch.stack([one for one, _ in own]), boxes, unit="fraction")
        rows += F.normalize(found.float(), dim=-1).cpu().split([len(b) for b in boxes])
    left = iter(rows)
    return [None if one is None else next(left) for one in pixels]


def _cat(rows: Sequence[Tensor]) -> Tensor:
    """Join rows; those of a part without a readable image are as wide as the others."""
    width = max((part.shape[1] for part in rows), default=0)
    return torch.cat([torch.empty(0, width), *(p if p.shape[1] else torch.zeros(len(p), width) for p in rows)])
