"""The passes of a model as ONNX graphs: image, dense, regions, short and long text."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops import reference
from fgclip_fast.ops.tree import EOS, LONG_LENGTH, SHORT_LENGTH


class Graph(NamedTuple):
    """A pass of a model, and inputs to trace it with.

    Attributes:
        entry: from the inputs, in their order, to the outputs.
        inputs: name → example.
        axes: for each input, the names of its axes that may have any length.
        outputs: names.
    """

    entry: nn.Module
    inputs: dict[str, Tensor]
    axes: dict[str, dict[int, str]]
    outputs: tuple[str, ...]


class _Entry(nn.Module):
    def __init__(self, model: FGCLIP) -> None:
        super().__init__()
        self.model = model


class ImageEntry(_Entry):
    """``pixel_values`` Tensor[B, 3, S, S], normalised → Tensor[B, D]."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        features, _ = self.model.vision_model(pixel_values, dense=False)
        return self.model.visual_projection(features)


class DenseEntry(_Entry):
    """``pixel_values`` → Tensor[B, G, G, D]."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        grid = (self.model.config.vision.grid,) * 2
        return self.model.encode_patches(pixel_values).unflatten(1, grid)


class RegionsEntry(_Entry):
    """``pixel_values``, ``boxes`` Tensor[R, 4], ``image_index`` int64 Tensor[R] → Tensor[R, D], and Tensor[B, D]."""

    def forward(self, pixel_values: Tensor, boxes: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        image, regions = self.model.encode_pixels(pixel_values, boxes, image_index)
        return regions, image


class TextEntry(nn.Module):
    """``input_ids`` integer Tensor[N, L] → Tensor[N, D]; L is at most 77, or 248 on the long path.

    The last column counts as the end of a text, so padding may be any id and rows that were cut need no end.
    """

    positions: Tensor

    def __init__(self, model: FGCLIP, long: bool) -> None:
        super().__init__()
        self.tower, tables = model.text_model, model.text_model.embeddings
        self.projection = model.text_filip_projection if long else model.text_projection
        positions = tables.long_positions() if long else tables.position_embedding.weight
        self.register_buffer("positions", positions.detach().clone())

    def forward(self, input_ids: Tensor) -> Tensor:
        ids = F.pad(input_ids[:, :-1], (0, 1), value=EOS)
        return self.projection(self.tower.rows(ids, self.positions))


def graphs(model: FGCLIP) -> dict[str, Graph]:
    """All graphs of a model, by the names of their files."""
    size = model.config.vision.image_size
    image = {"pixel_values": torch.zeros(2, 3, size, size)}
    boxes = {"boxes": torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 3), "image_index": torch.tensor([0, 1, 1])}
    batch = {"pixel_values": {0: "images"}}
    rows = {"boxes": {0: "regions"}, "image_index": {0: "regions"}}
    return {
        "image": Graph(ImageEntry(model), image, batch, ("image_embeds",)),
        "dense": Graph(DenseEntry(model), image, batch, ("dense_embeds",)),
        "regions": Graph(RegionsEntry(model), image | boxes, batch | rows, ("region_embeds", "image_embeds")),
        "text-short": text_graph(model, SHORT_LENGTH),
        "text-long": text_graph(model, LONG_LENGTH),
    }


def text_graph(model: FGCLIP, length: int) -> Graph:
    """The graph of the text path that takes up to ``length`` tokens: 77 or 248."""
    ids = torch.full((2, length), EOS)
    axes = {"input_ids": {0: "texts", 1: "tokens"}}
    return Graph(TextEntry(model, length == LONG_LENGTH), {"input_ids": ids}, axes, ("text_embeds",))


@torch.no_grad()
def trace(graph: Graph) -> Any:
    """Trace a graph by the exporter over ``torch.export``; axes that it does not name keep the example's length.

    Returns:
        ``onnx.ModelProto``, with its weights inside.

    Raises:
        ImportError: onnx or onnxscript is not installed.
    """
    import onnxscript  # noqa: F401  # the exporter's own message tells neither name

    axes = {name: {axis: torch.export.Dim.DYNAMIC for axis in own} for name, own in graph.axes.items()}
    examples = tuple(graph.inputs.values())
    with quiet():
        program = torch.export.export(graph.entry.eval(), examples, dynamic_shapes=axes or None)
        exported = torch.onnx.export(program.run_decompositions(_in_plain_torch()), dynamo=True, verbose=False)
    assert exported is not None  # as it is where no file is named
    proto = exported.model_proto
    _name_values(proto, graph)
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input):
        part.ClearField("metadata_props")  # paths of this machine, and the exporter's notes
    return proto


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter, the optimizer and the quantizer from logging each of their steps."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx", None)]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _in_plain_torch() -> dict[Any, Callable[..., Any]]:
    """Our ops, which no runtime knows, and what they mean."""
    ops = torch.ops.fgclip_fast
    return {
        ops.layer_norm.default: _layer_norm,
        ops.add_layer_norm.default: _add_layer_norm,
        ops.activation.default: _activation,
        ops.region_embedding.default: _region_embedding,
    }


def _add_layer_norm(residual: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    # The statistics are for the backward pass; nothing reads them here.
    statistics = residual.new_empty(2, residual.numel() // residual.shape[-1], dtype=torch.float32)
    return *reference.add_layer_norm(residual, *arguments), statistics


def _layer_norm(residual: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    return _add_layer_norm(residual, None, None, *arguments)[1:]


def _activation(hidden: Tensor, bias: Tensor, kind: str) -> Tensor:
    return reference.activation(hidden.to(bias.dtype) + bias, kind).to(hidden.dtype)


def _region_embedding(tokens: Tensor, boxes: Tensor, image_index: Tensor, H: int, W: int) -> Tensor:
    """One product with all tokens, since a copy of an image's tokens for each box may not fit the memory."""
    B, _, C = tokens.shape
    own = image_index[:, None] == torch.arange(B, device=boxes.device)
    weight = own[:, :, None] * reference.region_weights(boxes, (H, W))[:, None]
    return (weight.flatten(1) @ tokens.reshape(-1, C).float()).to(tokens.dtype)


def _name_values(proto: Any, graph: Graph) -> None:
    """Give inputs, outputs, and axes of any length the names of the graph in place of the tracer's."""
    ends, wanted = [*proto.graph.input, *proto.graph.output], [*graph.inputs, *graph.outputs]
    inner = {name: f"{name}_inner" for name in wanted}  # a value in the midst may have the same name
    names = inner | {value.name: name for value, name in zip(ends, wanted, strict=True)}
    for node in proto.graph.node:
        for own in (node.input, node.output):
            own[:] = [names.get(name, name) for name in own]
    axes = {}
    for value in [*ends, *proto.graph.value_info]:
        value.name = names.get(value.name, value.name)
    for value in proto.graph.input:
        for axis, name in graph.axes.get(value.name, {}).items():
            axes[value.type.tensor_type.shape.dim[axis].dim_param] = name
    for value in [*ends, *proto.graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in axes:
                dim.dim_param = axes[dim.dim_param]
