"""An exported folder of ONNX graphs, run by onnxruntime with the calls of the model."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgclip_fast.inputs.image import normalize
from fgclip_fast.inputs.texts import Texts
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.model import config_json, pretrained
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.text import pad

DESCRIPTION = "onnx.json"
"""File of what a caller must know beside the graphs: their precision, opset and the learned scales."""
SCALES = ("logit_scale", "logit_scale_finegraind", "logit_scale_hardneg")


class OnnxModel(FGCLIP):
    """A folder that ``fgclip export --format onnx`` wrote, with every call of :class:`fgclip_fast.FGCLIP`.

    Its parameters are empty: onnxruntime holds the weights of the graphs that were called.

    Args:
        folder: as exported.
        providers: onnxruntime's execution providers, the preferred first.

    Raises:
        ImportError: onnxruntime is not installed.
        OSError: a file is missing.
    """

    def __init__(self, folder: str | Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        import onnxruntime

        folder = Path(folder)
        described = json.loads((folder / DESCRIPTION).read_text())
        with pretrained.without_values():
            super().__init__(config_json.read(folder / "config.json"))
        for name in SCALES:
            setattr(self, name, torch.nn.Parameter(torch.tensor(described[name]), requires_grad=False))
        self.tokenizer = Tokenizer(folder / "merges.txt")

        @cache
        def session(graph: str) -> Any:
            return onnxruntime.InferenceSession(folder / f"{graph}.onnx", providers=[*providers])

        self._session = session

    @property
    def device(self) -> torch.device:
        """The CPU, where inputs are taken and results are left."""
        return torch.device("cpu")

    def run(self, graph: str, **inputs: Tensor) -> list[Tensor]:
        """The outputs of a graph."""
        found = self._session(graph).run(None, {name: value.numpy() for name, value in inputs.items()})
        return [torch.from_numpy(value) for value in found]

    def encode_pixels(self, image: Tensor, boxes: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`fgclip_fast.model.network.Network.encode_pixels`."""
        pixels = self._normalised(image)
        if len(boxes) == 0:
            (whole,) = self.run("image", pixel_values=pixels)
            return whole, whole[:0]
        regions, whole = self.run("regions", pixel_values=pixels, boxes=boxes, image_index=image_index)
        return whole, regions

    def encode_patches(self, image: Tensor) -> Tensor:
        """As :meth:`fgclip_fast.model.network.Network.encode_patches`."""
        return self.run("dense", pixel_values=self._normalised(image))[0].flatten(1, 2)

    def encode_tokens(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """As :meth:`fgclip_fast.model.network.Network.encode_tokens`; each path is padded to its longest text."""
        parts = []
        for graph, offsets in (
            ("text-short", texts.offsets[: texts.shorts + 1]),
            ("text-long", texts.offsets[texts.shorts :]),
        ):
            none = torch.empty(0, self.config.projection)
            some = len(offsets) > 1
            parts.append(self.run(graph, input_ids=pad(texts.token, offsets).long())[0] if some else none)
        return parts[0], parts[1]

    def _normalised(self, image: Tensor) -> Tensor:
        self._check(image)
        return image if image.is_floating_point() else normalize(image)
