"""Finds what serves an op on a device, and passes tensors to the extension as addresses.

The extension knows nothing of torch: strides are checked here; shapes, dtypes and devices by the op that calls it.
"""

import importlib
import importlib.util
import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import torch
from torch import Tensor

# op -> device type -> who serves it: "native" (the extension has <op>_forward_<device>), "triton" (kernels/<op>.py), or
# "torch" (ops/<op>.py itself, in plain torch).
SERVERS: dict[str, dict[str, str]] = {
    "contrastive_loss": {"cpu": "native", "cuda": "triton"},
    "hard_negative_loss": {"cpu": "native", "cuda": "triton"},
    "region_embedding": {"cpu": "native", "cuda": "native"},
    "add_layer_norm": {"cpu": "native", "cuda": "triton"},
    "activation_linear": {"cpu": "native", "cuda": "triton"},
    "prefix_tree": {"cpu": "native"},
    "tree_attention": {"cpu": "torch", "cuda": "triton"},  # other packages: ops/tree_attention.why_not
}


@cache
def extension() -> ModuleType | None:
    """The compiled module, or None where it was not built."""
    try:
        return importlib.import_module("fgclip_fast._native")
    except ImportError:
        return None


def serves(op: str, device: torch.device) -> bool:
    """Whether something faster than the eager reference runs ``op`` on ``device``."""
    return why_not(op, device.type) is None


# Looked up while tracing, not traced: what torch.compiler.assume_constant_result does, without its import of the whole
# compiler, which takes seconds.
serves._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def why_not(op: str, device_type: str) -> str | None:
    """None where a fast path serves ``op``, else the reason and the way out, in one sentence."""
    server = SERVERS.get(op, {}).get(device_type)
    if os.environ.get("FGCLIP_REFERENCE") == "1":
        return "FGCLIP_REFERENCE=1 asks for the eager reference"
    if server is None:
        return f"no {device_type} kernel exists for it"
    if server == "torch":
        return None
    if server == "triton":
        return None if importlib.util.find_spec("triton") else "triton is not installed"
    module = extension()
    if module is None:
        return "the extension is not built; run `pip install -e .` in the source tree"
    if not hasattr(module, f"{op}_forward_{device_type}"):
        return "the extension was built without CUDA; put nvcc on PATH and reinstall with FGCLIP_CUDA=1"
    return None


def require_installation() -> None:
    """Raises where the package is imported from a source tree in which nothing was built.

    Its ops would run, but every one of them as the slow reference.

    Raises:
        ImportError: the extension is missing and CMakeLists.txt lies beside the package; the message says what to do.
    """
    tree = Path(__file__).parents[2]
    if importlib.util.find_spec("fgclip_fast._native") is None and (tree / "CMakeLists.txt").is_file():
        raise ImportError(
            f"fgclip_fast was imported from the source tree {tree}, which is not installed: "
            "run `pip install -e .` there, or start Python in another folder"
        )


def refuse_vmap(info: Any, in_dims: Any, *arguments: Any) -> NoReturn:
    """What an op does under torch.vmap, which would run it and lose its gradient."""
    raise RuntimeError("fgclip_fast: an op of it does not run under torch.vmap; fold the extra dimension, or loop")


def address(tensor: Tensor) -> int:
    """Where the extension finds the values; the caller keeps ``tensor`` alive until the call returns.

    Raises:
        ValueError: not contiguous.
    """
    if not tensor.is_contiguous():
        raise ValueError(
            f"native: a contiguous tensor is needed, got strides {tensor.stride()} of {list(tensor.shape)}"
        )
    return tensor.data_ptr()


def row_address(tensor: Tensor) -> int:
    """As ``address``, for a tensor whose rows may lie apart: its other strides are passed along.

    Raises:
        ValueError: the values of a row do not lie side by side.
    """
    if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        raise ValueError(f"native: rows of adjacent values are needed, got strides {tensor.stride()}")
    return tensor.data_ptr()


def stream(device: torch.device) -> tuple[int, int]:
    """Index of a CUDA device and the address of its current stream."""
    current = torch.cuda.current_stream(device)
    return current.device_index, current.cuda_stream
