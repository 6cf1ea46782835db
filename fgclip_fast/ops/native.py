"""Choose the fast path of an op on a device, and pass tensors to the extension as addresses.

The extension knows nothing of torch: strides are checked here; shapes, dtypes and devices by the op that calls it. Ops
call it through ``from fgclip_fast import _native``, typed by ``_native.pyi``, after :func:`serves` found it.
"""

import importlib
import importlib.util
import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fgclip_fast import _native

# op -> device type -> its fast path: "native" (the extension has <op>_forward_<device>), "triton" (kernels/<op>.py) or
# "torch" (ops/<op>.py itself, in plain torch).
SERVERS: dict[str, dict[str, str]] = {
    "contrastive_loss": {"cpu": "native", "cuda": "triton"},
    "hard_negative_loss": {"cpu": "native", "cuda": "triton"},
    "region_embedding": {"cpu": "native", "cuda": "native"},
    "add_layer_norm": {"cpu": "native", "cuda": "triton"},
    "activation_linear": {"cpu": "native", "cuda": "triton"},
    "split_joint": {"cpu": "torch", "cuda": "triton"},
    "prefix_tree": {"cpu": "native"},
    "tree_attention": {"cpu": "torch", "cuda": "triton"},  # other packages: ops/tree_attention.why_not
}

# Serves where SERVERS cannot: the CUDA part of the extension needs nvcc when it is built, Triton does not.
SUBSTITUTES: dict[str, dict[str, str]] = {"region_embedding": {"cuda": "triton"}}


@cache
def extension() -> ModuleType | None:
    """The compiled module, or None if it was not built."""
    try:
        return importlib.import_module("fgclip_fast._native")
    except ImportError:
        return None


def serves(op: str, device: torch.device) -> bool:
    """Return True if a fast path, and not the eager reference, runs ``op`` on ``device``."""
    return why_not(op, device.type) is None


# torch.compile calls `serves` while tracing and keeps the result as a constant. The attribute is set by hand, since
# torch.compiler.assume_constant_result would import the whole compiler, which takes seconds.
serves._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def why_not(op: str, device_type: str) -> str | None:
    """Return None if a fast path serves ``op``, else the reason and the way out in one sentence."""
    if wants_reference():
        return "FGCLIP_REFERENCE=1 asks for the eager reference"
    first = SERVERS.get(op, {}).get(device_type)
    if first is None:
        return f"no {device_type} kernel exists for it"
    return None if server(op, device_type) else _missing(first, op, device_type)


def server(op: str, device_type: str) -> str | None:
    """Return the first that can serve ``op``, "native", "triton" or "torch"; None where only the reference can."""
    names = (table.get(op, {}).get(device_type) for table in (SERVERS, SUBSTITUTES))
    return next((name for name in names if name and _missing(name, op, device_type) is None), None)


def _missing(name: str, op: str, device_type: str) -> str | None:
    """What a server lacks here, and the way out; None where it lacks nothing."""
    if name == "torch":
        return None
    if name == "triton":
        return None if _has_triton() else "triton is not installed"
    module = extension()
    if module is None:
        return "the extension is not built; run `pip install -e .` in the source tree"
    if not hasattr(module, f"{op}_forward_{device_type}"):
        return "the extension was built without CUDA; put nvcc on PATH and reinstall with FGCLIP_CUDA=1"
    return None


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def wants_reference() -> bool:
    """Return True if ``FGCLIP_REFERENCE=1`` asks for the eager reference of every op."""
    return os.environ.get("FGCLIP_REFERENCE") == "1"


def may_read(tensor: Tensor) -> bool:
    """Return True if a check may read the values: on a GPU, where the host would wait, only with ``FGCLIP_CHECK=1``."""
    return tensor.device.type == "cpu" or os.environ.get("FGCLIP_CHECK") == "1"


def require_installation() -> None:
    """Refuse an import from a source tree that was not built, where every op would run as the slow reference.

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
    """Refuse torch.vmap, which would run an op and lose its gradient; the vmap rule of every op."""
    raise RuntimeError(
        "fgclip_fast: ops do not support torch.vmap; fold the extra dimension into the batch, or loop over it"
    )


def address(tensor: Tensor | None) -> int:
    """Address of the values, 0 for None; the caller keeps ``tensor`` alive until the extension returns.

    Raises:
        ValueError: not contiguous.
    """
    if tensor is None:
        return 0
    if not tensor.is_contiguous():
        raise ValueError(
            f"native: a contiguous tensor is needed, got strides {tensor.stride()} of {list(tensor.shape)}"
        )
    return tensor.data_ptr()


def row_address(tensor: Tensor) -> int:
    """Address of a tensor whose rows need not be adjacent; the caller passes the other strides along.

    Raises:
        ValueError: the values of a row are not adjacent.
    """
    if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        raise ValueError(f"native: rows of adjacent values are needed, got strides {tensor.stride()}")
    return tensor.data_ptr()


def dtype(tensor: Tensor) -> "_native.Dtype":
    """The dtype of the values, in the extension's enum."""
    from fgclip_fast import _native  # here, since the extension may not be built

    return getattr(_native.Dtype, str(tensor.dtype).removeprefix("torch."))


def stream(device: torch.device) -> tuple[int, int]:
    """Index of a CUDA device and the address of its current stream."""
    current = torch.cuda.current_stream(device)
    return current.device_index, current.cuda_stream
