"""Counts what a step does while it runs on tensors without values."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from weakref import finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fgclip_fast.cost.rules import Cost, cost_of, tensors

PACKAGE = Path(__file__).parents[1]
OWN = Path(__file__).parent


class Operation(NamedTuple):
    """One operation on the device."""

    name: str
    """``namespace::name``."""
    phase: str
    cost: Cost


class Memory:
    """Bytes of the storages on the device that are alive, and the most that there were."""

    def __init__(self) -> None:
        self.live = self.peak = 0
        self._known: set[int] = set()

    def add(self, tensor: Tensor) -> None:
        """Counts the storage of a tensor until it is freed; once, however many tensors share it."""
        storage = tensor.untyped_storage()
        key, nbytes = storage._cdata, storage.nbytes()
        if tensor.is_cuda and key not in self._known:
            self._known.add(key)
            self.live += nbytes
            self.peak = max(self.peak, self.live)
            finalize(storage, self._free, key, nbytes)

    def _free(self, key: int, nbytes: int) -> None:
        self._known.discard(key)
        self.live -= nbytes


class StepCounter(TorchDispatchMode):
    """A mode that notes each operation on the device.

    Attributes:
        phase: What the operations that follow belong to.
        step: Number of the step that they belong to.
        operations: So far.
        waits: How often the host waited for the device, by reason and place in this package.
        memory: Of all tensors that were made in this mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase = "forward"
        self.step = 0
        self.operations: list[Operation] = []
        self.waits: Counter[tuple[str, str]] = Counter()
        self.memory = Memory()

    def waited(self, reason: str) -> None:
        """Notes that the host waits here."""
        self.waits[reason, _place()] += 1

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operation._schema.name
        if name.startswith("prim::"):
            return operation(*args, **kwargs)
        if name in _READS and args[0].is_cuda:
            self.waited(name.removeprefix("aten::").lstrip("_"))
        result = _READS[name](*args) if name in _READS else self._run(operation, args, kwargs)
        for tensor in tensors(result):
            self.memory.add(tensor)
        if any(x.is_cuda for x in tensors((args, kwargs, result))):
            self._note(operation, args, kwargs, result)
        return result

    def _run(self, operation: Any, args: Any, kwargs: Any) -> Any:
        """Indexing by a mask asks the device for the number of rows; here all are taken."""
        name = operation._schema.name
        if name in ("aten::index", "aten::index_put_", "aten::index_put") and _is_mask(args[1]):
            self.waited("indexing by a mask")
            args = (args[0], [part for index in args[1] for part in _all_of(index)], *args[2:])
        return operation(*args, **kwargs)

    def _note(self, operation: Any, args: Any, kwargs: Any, result: Any) -> None:
        cost = cost_of(operation, args, kwargs, result)
        if cost.kind == "nothing":
            return
        if cost.kind == "copy" and not (kwargs.get("non_blocking") or args[2:3] == (True,)):
            self.waited("blocking copy")
        self.operations.append(Operation(operation._schema.name, self.phase, cost))
        self.memory.peak = max(self.memory.peak, self.memory.live + cost.scratch)


def _is_mask(indices: Any) -> bool:
    return any(isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8) for x in indices)


def _all_of(index: Tensor | None) -> list[Tensor | None]:
    """Of a mask, an index of every element in each dimension."""
    if index is None or not _is_mask([index]):
        return [index]
    return [torch.empty(index.numel(), dtype=torch.int64, device=index.device) for _ in range(index.dim())]


# Their results, or the sizes of these, depend on values: as many rows as there may be, and zero for a number.
_READS: dict[str, Callable[..., Any]] = {
    "aten::_local_scalar_dense": lambda x: _zero(x.dtype),
    "aten::nonzero": lambda x: x.new_empty(x.numel(), x.dim(), dtype=torch.int64),
    "aten::masked_select": lambda x, mask: x.new_empty(mask.numel()),
}


def _zero(dtype: torch.dtype) -> float | int | bool:
    return False if dtype == torch.bool else 0.0 if dtype.is_floating_point else 0


def _place() -> str:
    """File, line and function of this package that led here; the backward pass has none of its own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE) and not path.is_relative_to(OWN):
            return f"{path.relative_to(PACKAGE)}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"
