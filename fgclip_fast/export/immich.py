"""A folder that Immich's machine-learning service takes as one of its CLIP models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgclip_fast.export import onnx_graphs
from fgclip_fast.export.onnx import LIMITS, Precision, as_traced, proto_of
from fgclip_fast.export.onnx_graphs import Graph
from fgclip_fast.export.open_clip import config_of
from fgclip_fast.export.probe import TEXTS, compare_short_path, pixels
from fgclip_fast.files.whole_file import write_json, write_whole
from fgclip_fast.model import processor_files
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops.tree import EOS, SHORT_LENGTH

MODEL = "model.onnx"
_LARGEST = 2**31
"""Bytes of a protobuf; Immich copies no second file beside a graph."""


class _Unit(nn.Module):
    """A pass with embeddings of length 1, which Immich compares as they are."""

    def __init__(self, entry: nn.Module) -> None:
        super().__init__()
        self.entry = entry

    def forward(self, given: Tensor) -> Tensor:
        return F.normalize(self.entry(given), dim=-1)


def write_immich(model: FGCLIP, folder: Path, precision: Precision = "float32") -> float:
    """Write the image tower and the short path as two graphs with their settings, run them, and compare.

    Args:
        model: in evaluation mode, on the CPU.
        folder: made if missing; Immich wants it under the name of a model that it knows (docs/deploy.md).
        precision: as of :func:`fgclip_fast.export.onnx.write_onnx`.

    Returns:
        The largest difference of an embedding of length 1.

    Raises:
        ValueError: onnxruntime computes something else, or a tower is larger than one file may be.
        ImportError: onnx, onnxscript or onnxruntime is not installed.
    """
    import onnxruntime  # noqa: F401  # before minutes of work

    traced, size = as_traced(model, precision), model.config.vision.image_size
    image, text = torch.zeros(1, 3, size, size), torch.full((1, SHORT_LENGTH), EOS, dtype=torch.int32)
    settings = config_of(model)
    for name, entry, inputs in (
        ("visual", onnx_graphs.ImageEntry(traced), {"image": image}),
        ("textual", onnx_graphs.TextEntry(traced, long=False), {"text": text}),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        proto = proto_of(Graph(_Unit(entry), inputs, {}, ("embedding",)), precision)
        if proto.ByteSize() >= _LARGEST:
            raise ValueError(f"export: the {name} tower has {proto.ByteSize()} bytes, a graph at most {_LARGEST}")
        write_whole(folder / name / MODEL, proto.SerializeToString())
    processor_files.write(folder / "textual", model.tokenizer, size)
    (folder / "textual/preprocessor_config.json").unlink()
    write_json(folder / "config.json", settings["model_cfg"])
    write_json(
        folder / "visual/preprocess_cfg.json", {"size": [size, size], "mode": "RGB", **settings["preprocess_cfg"]}
    )
    return compare_short_path("onnxruntime", model, *_embed(folder, pixels(model)), LIMITS[precision])


def _embed(folder: Path, image: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings of images and of TEXTS, one by one, from the files alone and as Immich reads them."""
    import onnxruntime
    from tokenizers import Tokenizer

    length = json.loads((folder / "config.json").read_text())["text_cfg"]["context_length"]
    pad = json.loads((folder / "textual/tokenizer_config.json").read_text())["pad_token"]
    tokenizer = Tokenizer.from_file(str(folder / "textual/tokenizer.json"))
    tokenizer.enable_padding(length=length, pad_token=pad, pad_id=tokenizer.token_to_id(pad))
    tokenizer.enable_truncation(max_length=length)

    def run(part: str, inputs: list[dict[str, Any]]) -> Tensor:
        session = onnxruntime.InferenceSession(folder / part / MODEL)
        return torch.cat([torch.from_numpy(session.run(None, one)[0]) for one in inputs])

    texts = [{"text": np.array([tokenizer.encode(text).ids], dtype=np.int32)} for text in TEXTS]
    return run("visual", [{"image": one[None].numpy()} for one in image]), run("textual", texts)
