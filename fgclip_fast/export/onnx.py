"""A folder of ONNX graphs: image, dense, regions, short and long text, whose equal weights stand once."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fgclip_fast.export import onnx_graphs
from fgclip_fast.export.onnx_graphs import Graph
from fgclip_fast.export.onnx_model import DESCRIPTION, SCALES, OnnxModel
from fgclip_fast.export.probe import TEXTS, compare, pixels
from fgclip_fast.files.whole_file import replacing, write_json, write_whole
from fgclip_fast.model import config_json, pretrained, processor_files
from fgclip_fast.model.fgclip import FGCLIP

Precision = Literal["float32", "float16", "int8"]
LIMITS: dict[Precision, float] = {"float32": 1e-4, "float16": 2e-2, "int8": 0.5}
"""Largest difference in a component of an embedding of length 1, of noise. Beyond it an export is broken; what a lower
precision costs is measured on records."""
WEIGHTS = "weights.bin"
_SMALLEST = 1024
"""Bytes of the smallest tensor that leaves its graph."""
_PAGE = 4096
"""Weights begin at multiples of this, so that a runtime can map them into memory."""


def write_onnx(model: FGCLIP, folder: Path, precision: Precision = "float32") -> float:
    """Write the whole model as ONNX graphs with the files of tokenizer and image processor, run them, and compare.

    Args:
        model: in evaluation mode, on the CPU.
        folder: made if missing.
        precision: of the products inside the blocks: "float16" stores their weights so; "int8" stores them in 7 bits,
            by channel, and rounds their inputs as they come (onnxruntime's dynamic quantisation).

    Returns:
        The largest difference of an embedding of length 1.

    Raises:
        ValueError: onnxruntime computes something else.
        ImportError: onnx, onnxscript or onnxruntime is not installed.
    """
    import onnxruntime  # noqa: F401  # before minutes of work

    folder.mkdir(parents=True, exist_ok=True)
    protos = {
        name: proto_of(graph, precision) for name, graph in onnx_graphs.graphs(as_traced(model, precision)).items()
    }
    described = {
        "precision": precision,
        "opset": protos["image"].opset_import[0].version,
        **{name: getattr(model, name).item() for name in SCALES},
        "graphs": {name: _signature(proto) for name, proto in protos.items()},
    }
    _save(protos, folder)
    write_json(folder / DESCRIPTION, described)
    with replacing(folder / "config.json") as partial:
        config_json.write(partial, model.config)
    processor_files.write(folder, model.tokenizer, model.config.vision.image_size)
    return _check(model, OnnxModel(folder), precision)


def as_traced(model: FGCLIP, precision: Precision) -> FGCLIP:
    """The model with its products' weights in the precision that the exporter traces: itself but for float16."""
    if precision != "float16":
        return model
    with pretrained.without_values():
        half = FGCLIP(model.config)
    half.load_state_dict(pretrained.converted(model.state_dict(), torch.float16), assign=True)
    return half


def proto_of(graph: Graph, precision: Precision) -> Any:
    """The graph as ``onnx.ModelProto``; "int8" is made here, the others are what the graph computes in."""
    proto = onnx_graphs.trace(graph)
    return _quantized(proto) if precision == "int8" else proto


def _quantized(proto: Any) -> Any:
    """The products with a weight, in int8."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Of 7 bits, the sums of a processor without VNNI stay in 16.
    way = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
    with tempfile.TemporaryDirectory() as folder, onnx_graphs.quiet():
        file = Path(folder) / "model.onnx"
        quantize_dynamic(proto, file, op_types_to_quantize=["MatMul", "Gemm"], **way)
        return onnx.load(file)


def _save(protos: Mapping[str, Any], folder: Path) -> None:
    """Write the graphs, and each of their different weights once into one file beside them."""
    from onnx.external_data_helper import set_external_data

    places: dict[bytes, int] = {}
    with replacing(folder / WEIGHTS) as partial, partial.open("wb") as file:
        for tensor in (tensor for proto in protos.values() for tensor in proto.graph.initializer):
            raw = tensor.raw_data
            if len(raw) < _SMALLEST:
                continue
            key = hashlib.sha256(raw).digest()
            if key not in places:
                file.write(bytes(-file.tell() % _PAGE))
                places[key] = file.tell()
                file.write(raw)
            set_external_data(tensor, WEIGHTS, offset=places[key], length=len(raw))
            tensor.ClearField("raw_data")
    for name, proto in protos.items():
        write_whole(folder / f"{name}.onnx", proto.SerializeToString())


def _signature(proto: Any) -> dict[str, dict[str, list[int | str]]]:
    """Shapes of inputs and outputs, by name; an axis of any length has a name."""
    return {
        kind: {
            value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
        }
        for kind, values in (("inputs", proto.graph.input), ("outputs", proto.graph.output))
    }


def _check(model: FGCLIP, peer: OnnxModel, precision: Precision) -> float:
    """Compare both by every call, with numbers of images, boxes and tokens that were not traced."""
    image = torch.cat([pixels(model), pixels(model).flip(0), pixels(model)[:1]])
    boxes = [[(0.1, 0.2, 0.8, 0.9)], [], [(0, 0, 1, 1), (0.3, 0.1, 0.35, 0.9)], [(-0.2, 0.5, 1.2, 0.6)], []]

    def both(call: Callable[[FGCLIP], Tensor]) -> tuple[Tensor, Tensor]:
        return call(model), call(peer)

    pairs = {
        "image": both(lambda m: m.encode_image(image)),
        "dense image": both(lambda m: m.encode_dense(image)),
        "region": both(lambda m: m.encode_regions(image, boxes, unit="fraction")),
        "short text": both(lambda m: m.encode_text(TEXTS)),
        "long text": both(lambda m: m.encode_text([*TEXTS, " ".join(TEXTS * 9)], kind="long")),
    }
    return compare("onnxruntime", pairs, LIMITS[precision])
