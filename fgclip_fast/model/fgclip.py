"""The model as users call it: images, strings and boxes in, embeddings out."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fgclip_fast.config.model import Model
from fgclip_fast.inputs.image import ImageInput, Transform, width_and_height
from fgclip_fast.inputs.texts import Texts
from fgclip_fast.inputs.tokenizer import Tokenizer, Tokens
from fgclip_fast.model import boxes as box_lists, processor_files, weights
from fgclip_fast.model.network import Network
from fgclip_fast.ops.tree import LONG_LENGTH, SHORT_LENGTH, TILE

log = logging.getLogger("fgclip_fast")

IMAGES, TOKENS = 64, 16384
"""Most images and most tokens of one pass through a tower; more are split into several passes."""

P = ParamSpec("P")
R = TypeVar("R")
Kind = Literal["short", "long"]
Images = ImageInput | Sequence[ImageInput]


def _differentiable_on_request(encode: Callable[P, R]) -> Callable[P, R]:
    """Run a call without gradients, unless its ``gradients`` is set."""

    @wraps(encode)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        with torch.set_grad_enabled(bool(options.get("gradients")) and torch.is_grad_enabled()):
            return encode(*arguments, **options)

    return call


class FGCLIP(Network):
    """The fine-grained image-text model of arXiv 2505.05071, from random weights; ``fgclip_fast.load`` reads others.

    The ``encode_`` calls take any number of inputs and leave results on the model's device. They make no gradients
    unless ``gradients`` is set; then torch's own switches rule (``torch.no_grad``, ``requires_grad``).
    ``images`` may be one image or a sequence of paths, PIL images or uint8 Tensor[3, H, W]; or a uint8
    Tensor[B, 3, H, W], squashed to the model's size; or a floating-point Tensor[B, 3, S, S], taken as normalised.

    Attributes:
        config: the model's geometry and how it runs.
        tokenizer: turns texts into ids.
        transform: squashes an image to the uint8 Tensor[3, S, S] that the model takes.
    """

    def __init__(self, config: Model) -> None:
        super().__init__(config)
        self.tokenizer = Tokenizer()
        self.transform = Transform(config.vision.image_size)
        self._told: set[str] = set()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @_differentiable_on_request
    def encode_image(self, images: Images, normalize: bool = True, *, gradients: bool = False) -> Tensor:
        """Tensor[B, D], one embedding an image, of unit length if ``normalize``."""
        none = torch.empty(0, 4), torch.empty(0, dtype=torch.int64)
        parts = [
            self.encode_pixels(self._squash(part).to(self.device), *(x.to(self.device) for x in none))[0]
            for part in _parts(_listed(images))
        ]
        return self._joined(parts, normalize)

    @_differentiable_on_request
    def encode_dense(self, images: Images, normalize: bool = True, *, gradients: bool = False) -> Tensor:
        """Tensor[B, G, G, D], one embedding a patch; [b, y, x] is row y, column x."""
        grid = self.config.vision.grid
        parts = [self.encode_patches(self._squash(part).to(self.device)) for part in _parts(_listed(images))]
        return self._joined(parts, normalize, grid * grid).unflatten(1, (grid, grid))

    def encode_regions(
        self,
        images: Images,
        boxes: Sequence[Any],
        unit: box_lists.Unit = "pixel",
        normalize: bool = True,
        *,
        gradients: bool = False,
    ) -> Tensor:
        """Embeddings of boxes, those of the first image first.

        Args:
            images: B images.
            boxes: the boxes of each image, [n, 4] xyxy; n may be 0.
            unit: "pixel": of the image as given; "fraction": of its width and height.
            normalize: whether to scale to unit length.
            gradients: whether the embeddings are differentiable.

        Returns:
            Tensor[R, D].

        Raises:
            ValueError: a box that is not four finite numbers, has no area or lies outside; the message names it.
        """
        return self.encode_image_and_regions(images, boxes, unit, normalize, gradients=gradients)[1]

    @_differentiable_on_request
    def encode_image_and_regions(
        self,
        images: Images,
        boxes: Sequence[Any],
        unit: box_lists.Unit = "pixel",
        normalize: bool = True,
        *,
        gradients: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Embeddings of images and of boxes in them, Tensor[B, D] and Tensor[R, D], in one pass.

        Arguments and errors are those of :meth:`encode_regions`.
        """
        images = _listed(images)
        flat, image_index = box_lists.flatten(boxes, [width_and_height(image) for image in images], unit)
        whole, regions = [], []
        for first, part in zip(range(0, len(images), IMAGES), _parts(images), strict=True):
            own = (image_index >= first) & (image_index < first + len(part))
            inputs = self._squash(part), flat[own], image_index[own] - first
            found = self.encode_pixels(*(x.to(self.device) for x in inputs))
            whole.append(found[0])
            regions.append(found[1])
        return self._joined(whole, normalize), self._joined(regions, normalize)

    @_differentiable_on_request
    def encode_text(
        self, texts: Sequence[str], kind: Kind = "short", normalize: bool = True, *, gradients: bool = False
    ) -> Tensor:
        """Embeddings of texts, in their order; no prompt is added.

        Args:
            texts: any number; of equal beginnings each is computed once, and equal texts have equal bits.
            kind: "short": captions and phrases of at most 77 tokens; "long": descriptions of at most 248. Longer texts
                are cut, with a warning the first time.
            normalize: whether to scale to unit length.
            gradients: whether the embeddings are differentiable.

        Returns:
            Tensor[N, D].
        """
        if kind not in ("short", "long"):
            raise ValueError(f"encode_text: kind must be 'short' or 'long', got {kind!r}")
        tokens = self.tokenizer(texts, SHORT_LENGTH if kind == "short" else LONG_LENGTH)
        self._warn_if_cut(texts, tokens, kind)
        tokens, row = _deduplicate(tokens)
        parts = []
        for part in _passes(tokens):
            shorts = len(part.offsets) - 1 if kind == "short" else 0
            packed = Texts(*part, shorts).packed(multiple=1 if self.device.type == "cpu" else TILE).to(self.device)
            parts.append(self.encode_tokens(packed)[kind == "long"])
        return self._joined(parts, normalize).index_select(0, row.to(self.device))  # in backward one order of sums

    def rank(
        self,
        image: ImageInput,
        texts: Sequence[str],
        box: Sequence[float] | None = None,
        unit: box_lists.Unit = "pixel",
        kind: Kind = "short",
    ) -> list[tuple[str, float]]:
        """Rank texts by how well they describe an image, or a box in it: (text, probability), the best first."""
        if len(texts) == 0:
            raise ValueError("rank: texts must hold at least one, got none")
        shown = self.encode_image(image) if box is None else self.encode_regions([image], [[tuple(box)]], unit)
        logits = self.logit_scale.exp() * self.encode_text(texts, kind) @ shown[0]
        probabilities = logits.softmax(dim=0).tolist()
        return sorted(zip(texts, probabilities, strict=True), key=lambda pair: -pair[1])

    def save(self, path: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write a folder of the released layout, made if missing: the weights in their dtype, and what goes with them.

        Beside ``config.json`` and ``model.safetensors`` stand the files of tokenizer and image processor, so that
        transformers' ``AutoTokenizer`` and ``AutoProcessor`` read the folder, and the released code, too.

        Args:
            path: the folder.
            state: weights to write in place of the model's own, by the same names.
        """
        weights.write(Path(path), self.config, dict(self.state_dict() if state is None else state))
        try:
            processor_files.write(Path(path), self.tokenizer, self.config.vision.image_size)
        except FileNotFoundError as error:  # the weights of a run are worth more than these
            log.warning("save: %s holds the weights, but no tokenizer: %s", path, error)

    def _squash(self, images: Sequence[ImageInput] | Tensor) -> Tensor:
        """Stack a few images as Tensor[B, 3, S, S]."""
        size = self.config.vision.image_size
        if not isinstance(images, Tensor):
            return torch.stack([self.transform(image) for image in images])
        if images.is_floating_point():
            self._warn_if_unnormalised(images)
            return images
        if images.shape[1:] == (3, size, size):
            return images
        return torch.stack([self.transform(image) for image in images])

    def _warn_if_unnormalised(self, images: Tensor) -> None:
        """Warn at the first call with floats if these lie from 0 to 1, as torchvision's ToTensor makes them."""
        if "pixels" in self._told or images.numel() == 0:
            return
        self._told.add("pixels")
        if images.min() >= 0 and images.max() <= 1:
            hint = "floating-point images are taken as normalised; these lie from 0 to 1, so pass uint8 ones"
            warnings.warn(f"images: {hint}", stacklevel=5)

    def _joined(self, parts: list[Tensor], normalize: bool, *middle: int) -> Tensor:
        if not parts:
            return torch.empty(0, *middle, self.config.projection, device=self.device)
        joined = torch.cat(parts)
        return F.normalize(joined, dim=-1) if normalize else joined

    def _warn_if_cut(self, texts: Sequence[str], tokens: Tokens, kind: Kind) -> None:
        longest = SHORT_LENGTH if kind == "short" else LONG_LENGTH
        full = (tokens.offsets.diff() == longest).nonzero()[:, 0].tolist()
        if kind in self._told or not full:
            return
        if cut := self.tokenizer.truncated([texts[i] for i in full], longest):
            self._told.add(kind)
            other = f"; kind='long' takes up to {LONG_LENGTH}" if kind == "short" else ""
            warnings.warn(f"encode_text: {cut} of {len(texts)} texts were cut to {longest} tokens{other}", stacklevel=4)


def _listed(images: Images) -> Sequence[ImageInput] | Tensor:
    """Wrap a single image in a sequence."""
    if isinstance(images, Tensor):
        if images.ndim not in (3, 4):
            raise ValueError(f"images: a tensor must be [B, 3, H, W] or [3, H, W], got {list(images.shape)}")
        return images if images.ndim == 4 else images[None]
    if isinstance(images, np.ndarray):
        return [*images] if images.ndim == 4 else [images]
    return [images] if isinstance(images, str | Path | Image.Image) else images


def _parts(images: Sequence[ImageInput] | Tensor) -> Iterator[Sequence[ImageInput] | Tensor]:
    for first in range(0, len(images), IMAGES):
        yield images[first : first + IMAGES]


def _deduplicate(tokens: Tokens) -> tuple[Tokens, Tensor]:
    """Keep each text once, and give the row of each input among them, int64 [N].

    Two passes would not give equal texts the same bits.
    """
    rows = tokens.token.split(tokens.offsets.diff().tolist())
    keys = [row.numpy().tobytes() for row in rows]
    different = dict(zip(keys, rows, strict=True))
    place = {key: n for n, key in enumerate(different)}
    token = torch.cat([tokens.token[:0], *different.values()])
    offsets = torch.tensor([0, *map(len, different.values())]).cumsum(0)
    return Tokens(token, offsets), torch.tensor([place[key] for key in keys], dtype=torch.int64)


def _passes(tokens: Tokens) -> Iterator[Tokens]:
    """Split texts into consecutive parts of at most TOKENS tokens."""
    first, count = 0, len(tokens.offsets) - 1
    while first < count:
        start = int(tokens.offsets[first])
        last = max(first + 1, int(torch.searchsorted(tokens.offsets, start + TOKENS, right=True)) - 1)
        yield Tokens(tokens.token[start : tokens.offsets[last]], tokens.offsets[first : last + 1] - start)
        first = last
