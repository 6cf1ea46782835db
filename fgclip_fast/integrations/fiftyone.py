"""The model for FiftyOne: images, prompts, and all patches of an image in one pass.

For example: ``dataset.compute_embeddings(FGCLIPModel("runs/mine"), embeddings_field="fgclip")``.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

try:
    from fiftyone.core.labels import Detection, Polyline
    from fiftyone.core.models import EmbeddingsMixin, Model, PromptMixin
except ImportError:
    raise ImportError("this integration needs FiftyOne: pip install 'fgclip_fast[fiftyone]'") from None

from fgclip_fast.inputs.boxes import BadBox, Box, checked, corners
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP, Kind

__all__ = ["FGCLIPModel"]
log = logging.getLogger("fgclip_fast")


class FGCLIPModel(Model, EmbeddingsMixin, PromptMixin):
    """A FiftyOne model that embeds images and prompts; embeddings are fp32 and of unit length.

    FiftyOne's own ``compute_patch_embeddings`` crops each box and embeds the crop. :meth:`embed_patches` sees the image
    once, whole, and takes the embeddings of all its boxes from that pass.

    Args:
        model: a model, or what :func:`fgclip_fast.load` takes.
        kind: path of prompts: "short", up to 77 tokens, or "long", up to 248.
    """

    def __init__(self, model: FGCLIP | str | Path, kind: Kind = "short") -> None:
        super().__init__()
        self.model = model if isinstance(model, FGCLIP) else pretrained.load(model)
        self.kind = kind
        self._preprocess = True

    media_type = "image"
    has_embeddings = True
    can_embed_prompts = True
    ragged_batches = True
    """Images of a batch may differ in size, and are squashed here."""
    transforms = None

    @property
    def preprocess(self) -> bool:
        """True: images are given as they are."""
        return self._preprocess

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        self._preprocess = value

    def embed(self, arg: np.ndarray) -> np.ndarray:
        """The embedding of an image, fp32 [D], of uint8 [H, W, 3] or [H, W]."""
        return self.embed_all([arg])[0]

    def embed_all(self, args: Sequence[np.ndarray]) -> np.ndarray:
        """The embeddings of images of any sizes, fp32 [N, D]."""
        return self.model.encode_image([_three_channels(image) for image in args]).cpu().numpy()

    def embed_prompt(self, arg: str) -> np.ndarray:
        """The embedding of a text, fp32 [D]."""
        return self.embed_prompts([arg])[0]

    def embed_prompts(self, args: Sequence[str]) -> np.ndarray:
        """The embeddings of texts, fp32 [N, D]."""
        return self.model.encode_text(list(args), kind=self.kind).cpu().numpy()

    def embed_patches(
        self, samples: Any, patches_field: str, embeddings_field: str | None = None, batch_size: int = 16
    ) -> dict[str, np.ndarray | None] | None:
        """Embed the boxes of all samples, one pass over each image.

        The result is what FiftyOne's ``compute_patch_embeddings`` gives, for
        ``compute_similarity(samples, patches_field=…, embeddings=…)``. A sample whose image cannot be read, or with a
        box without area or outside the image, is named and left out.

        Args:
            samples: a FiftyOne dataset or view of images.
            patches_field: field of detections or polylines, or of one.
            embeddings_field: attribute of each label that the embeddings are stored in; None: they are returned.
            batch_size: images a pass.

        Returns:
            The id of each sample to fp32 [n, D], or None where there is none; nothing with an ``embeddings_field``.

        Raises:
            ValueError: the field holds other labels.
        """
        found: dict[str, np.ndarray | None] = {}
        for first in range(0, len(samples), batch_size):
            batch = list(samples[first : first + batch_size])
            labels = {sample.id: _labels(sample[patches_field], patches_field) for sample in batch}
            rows = self._rows(batch, labels)
            found |= {sample.id: rows.get(sample.id) for sample in batch}
            for sample in batch if embeddings_field is not None else ():
                if sample.id in rows:
                    for label, row in zip(labels[sample.id], rows[sample.id], strict=True):
                        label[embeddings_field] = row
                    sample.save()
        return found if embeddings_field is None else None

    def _rows(self, batch: Sequence[Any], labels: dict[str, list[Any]]) -> dict[str, np.ndarray]:
        """The embeddings of each usable sample's labels, fp32 [n, D]."""
        pixels, boxes = {}, {}
        for sample in batch:
            if not labels[sample.id]:
                continue
            try:
                boxes[sample.id] = [_box(label) for label in labels[sample.id]]
                pixels[sample.id] = self.model.transform(sample.filepath)
            except (OSError, ValueError) as error:
                boxes.pop(sample.id, None)
                log.warning("embed_patches: %s; sample %s of %s is left out", error, sample.id, sample.filepath)
        if not boxes:
            return {}
        rows = self.model.encode_regions(list(pixels.values()), list(boxes.values()), unit="fraction").cpu().numpy()
        ends = np.cumsum([len(own) for own in boxes.values()])
        return dict(zip(boxes, np.split(rows, ends[:-1]), strict=True))


def _labels(value: Any, field: str) -> list[Any]:
    """The labels of a field: none, one, or those of a list."""
    if value is None:
        return []
    for name in ("detections", "polylines"):
        if hasattr(value, name):
            return list(getattr(value, name))
    if isinstance(value, Detection | Polyline):
        return [value]
    raise ValueError(f"embed_patches: {field} must hold detections or polylines, got {type(value).__name__}")


def _box(label: Any) -> Box:
    """xyxy as fractions of the image; FiftyOne's boxes are x, y, width, height, and its polylines points.

    Raises:
        ValueError: it has no area or lies outside the image.
    """
    if isinstance(label, Polyline):
        points = np.array([point for shape in label.points for point in shape])
        box: Any = (*points.min(axis=0), *points.max(axis=0))
    else:
        box = corners(label.bounding_box)
    try:
        return checked([float(side) for side in box])
    except BadBox as bad:
        raise ValueError(f"box {[float(side) for side in box]} {bad}") from None


def _three_channels(image: np.ndarray) -> np.ndarray:
    """A picture without its transparency, and grey of one channel as [H, W]."""
    if image.ndim == 3 and image.shape[2] in (1, 4):
        return image[:, :, 0] if image.shape[2] == 1 else np.ascontiguousarray(image[:, :, :3])
    return image
