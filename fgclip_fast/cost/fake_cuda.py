"""A CUDA device without a card: tensors have shapes and no values, and our code takes the paths of a card.

Torch asks for a card before some things that need none: autocast, the choice of an attention kernel, events. The
answer is given here.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache, partial
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

from fgclip_fast.cost.counter import StepCounter
from fgclip_fast.inputs import image
from fgclip_fast.ops import native

DEVICE = torch.device("cuda", 0)
# As an attribute of the package, the module's name is that of the function.
_tree_attention = import_module("fgclip_fast.ops.tree_attention")
_tree_backend_why_not = _tree_attention.why_not


@contextmanager
def fake_cuda(counter: StepCounter) -> Iterator[None]:
    """A context in which ``DEVICE`` exists, each of our ops has its kernel, and ``counter`` counts.

    Tensors that were made outside may not be used inside.
    """
    changes: list[tuple[Any, str, Any]] = [
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
        (torch.cuda, "synchronize", lambda *_: counter.waited("synchronize")),
        (torch.cuda, "Event", partial(_Event, counter)),
        (torch.cuda, "Stream", _Stream),
        (torch.cuda, "current_stream", _Stream),
        (torch.cuda, "stream", nullcontext),
        (Tensor, "record_stream", lambda *_: None),
        (FakeTensor, "tolist", lambda tensor: _read(tensor, counter)),
        (torch.nn.utils.clip_grad, "_has_foreach_support", lambda *_: True),  # asks for the exact type of a tensor
        (image, "_channels", _constants()),
        (native, "why_not", lambda op, kind: None if kind in native.SERVERS[op] else f"no {kind} kernel exists for it"),
        (_tree_attention, "why_not", _why_not),
    ]
    with ExitStack() as stack:
        for owner, name, value in changes:
            stack.enter_context(patch.object(owner, name, value))
        for mode in (FakeTensorMode(), counter, _Functions()):
            stack.enter_context(mode)
        image.normalize(torch.empty(1, 3, 1, 1, dtype=torch.uint8, device=DEVICE))  # makes its constants
        yield


def _constants() -> Any:
    """The constants of ``normalize``, kept through the count: it keeps none of a tensor without values itself."""
    kept: Any = cache(image._channels.__wrapped__)
    kept.__wrapped__ = kept
    return kept


def _why_not(backend: str, *here: Any) -> str | None:
    return None if backend == "triton" else _tree_backend_why_not(backend, *here)


class _Event:
    """An event; the host that waits for one of an earlier step does not wait for this step."""

    def __init__(self, counter: StepCounter, *_: Any, **__: Any) -> None:
        self._counter, self._step = counter, counter.step

    def record(self, *_: Any) -> None:
        self._step = self._counter.step

    def wait(self, *_: Any) -> None: ...

    def synchronize(self) -> None:
        if self._step == self._counter.step:
            self._counter.waited("event of this step")

    def query(self) -> bool:
        return True


class _Stream:
    """A stream; what is queued on any runs at once."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def wait_event(self, *_: Any) -> None: ...

    def wait_stream(self, *_: Any) -> None: ...


class _Functions(TorchFunctionMode):
    """Meets functions whose choice of a kernel, or of pinned memory, needs a card."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.nn.functional.scaled_dot_product_attention and args[0].is_cuda:
            return _attend(*args, **kwargs)
        if function is Tensor.backward:
            with self:  # which recomputes blocks; a mode is off in its own call
                return torch.autograd.backward(*args, **kwargs)
        if function is Tensor.pin_memory:
            return args[0]
        if function in (torch.empty, torch.empty_like, Tensor.new_empty):
            kwargs.pop("pin_memory", None)
        return function(*args, **kwargs)


def _read(tensor: Tensor, counter: StepCounter) -> Any:
    """The values of a tensor, zeros, in nested lists."""
    if tensor.is_cuda:
        counter.waited("tolist")
    return _zeros(tensor.shape, 0.0 if tensor.is_floating_point() else 0)


def _zeros(shape: Any, zero: float) -> Any:
    return [_zeros(shape[1:], zero) for _ in range(shape[0])] if len(shape) else zero


def _attend(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """Flash attention in half precision, else the memory-efficient kernel."""
    if torch.is_autocast_enabled("cuda"):
        q, k, v = (x.to(torch.get_autocast_dtype("cuda")) for x in (q, k, v))
    if attn_mask is None and q.dtype != torch.float32:
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, is_causal)[0]
    bias = None if attn_mask is None else torch.empty_like(attn_mask, dtype=q.dtype)
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, bias, True, 0.0, is_causal)[0]
