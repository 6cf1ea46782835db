"""Costs of single operations: FLOPs, bytes, launches and scratch memory, by the operation's name.

An operation without a rule is elementwise: it reads its inputs once and writes its outputs once. A new op of ours
registers its own rule with :func:`rule`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

Kind = Literal["product", "attention", "loss", "elementwise", "copy", "collective", "nothing"]


class Cost(NamedTuple):
    """Cost of one operation."""

    kind: Kind
    """``product`` is of matrices; ``copy`` is between host and device; ``nothing`` is a view, or memory not written."""
    flops: int = 0
    """Of its products."""
    bytes: int = 0
    """Read and written."""
    launches: int = 1
    """Kernels, about: a library chooses its own."""
    scratch: int = 0
    """Bytes held only while the operation runs."""
    dtype: torch.dtype = torch.float32
    """Of the factors of its products, on which their rate depends."""
    cast: bool = False
    """True where it changes the dtype and nothing else."""


Rule = Callable[[Sequence[Any], Any], Cost]
"""Positional arguments and result of an operation -> its cost."""
RULES: dict[str, Rule] = {}
"""By name without overload: ``aten::mm``, ``fgclip_fast::tree_attention``."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule for operations called ``namespace::name``; it may replace another."""

    def register(of: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, of))
        return of

    return register


def cost_of(operation: Any, arguments: Sequence[Any], keywords: dict[str, Any], result: Any) -> Cost:
    """The cost of one call of an ``OpOverload``."""
    name = operation._schema.name
    if name in RULES:
        return RULES[name](arguments, result)
    if operation.is_view or name in _FREE:
        return Cost("nothing", launches=0)
    if operation.overloadpacket in flop_registry:
        return _product(operation, arguments, keywords, result)
    if name.startswith("aten::_foreach"):
        return _foreach(operation, arguments, result)
    if name.startswith("c10d::"):
        return Cost("collective", bytes=size(list(arguments)))
    return Cost("elementwise", bytes=_traffic(operation, arguments, keywords, result), launches=_LAUNCHES.get(name, 1))


def size(value: Any) -> int:
    """Bytes of the tensors in nested sequences, each once; of an expanded tensor, what lies in memory."""
    return sum(_bytes(x) for x in {id(x): x for x in tensors(value)}.values())


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested sequences and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)


def _bytes(x: Tensor) -> int:
    return x.element_size() * math.prod(n for n, stride in zip(x.shape, x.stride(), strict=True) if stride or n == 0)


_FREE = {
    *("aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided"),
    *("aten::_unsafe_view", "aten::_reshape_alias", "aten::lift_fresh", "aten::detach_", "aten::is_pinned"),
}
_LAUNCHES = {
    "aten::native_layer_norm_backward": 3,  # One for the input, two for weight and bias.
    "aten::embedding_dense_backward": 8,  # It sorts the indices.
}
# These write and do not read.
_FILLS = {"aten::fill_", "aten::zero_", "aten::zeros_like", "aten::ones_like", "aten::full_like", "aten::new_zeros"}
_LOOKUPS = {"aten::embedding", "aten::index_select", "aten::gather", "aten::index"}  # These read what they return.


def _traffic(operation: Any, arguments: Sequence[Any], keywords: dict[str, Any], result: Any) -> int:
    name, outputs = operation._schema.name, size(result)
    if name in _FILLS:
        return outputs
    if name in _LOOKUPS:
        return 2 * outputs + size(arguments[1:])
    return size(list(arguments)) + outputs


@rule("aten::_to_copy", "aten::copy_")
def _copy(arguments: Sequence[Any], result: Tensor) -> Cost:
    source = arguments[1] if len(arguments) > 1 else arguments[0]
    if source.device.type != result.device.type:
        return Cost("copy", bytes=size(source))
    return Cost("elementwise", bytes=size(source) + size(result), cast=source.dtype != result.dtype)


def _product(operation: Any, arguments: Sequence[Any], keywords: dict[str, Any], result: Any) -> Cost:
    """Products and attention of torch, by its own formulas."""
    flops = flop_registry[operation.overloadpacket](*arguments, **keywords, out_val=result)
    name = operation._schema.name
    kind: Kind = "attention" if "attention" in name else "product"
    launches = 3 if name.endswith("attention_backward") else 1
    factor = arguments[1] if name in ("aten::addmm", "aten::baddbmm") else arguments[0]
    return Cost(kind, flops, size(list(arguments)) + size(result), launches, dtype=factor.dtype)


def _foreach(operation: Any, arguments: Sequence[Any], result: Any) -> Cost:
    """One call for lists of tensors."""
    lists = [list(tensors(argument)) for argument in arguments if isinstance(argument, list | tuple)]
    written = [a.alias_info is not None and a.alias_info.is_write for a in operation._schema.arguments]
    again = [argument for argument, writes in zip(arguments, written, strict=False) if writes]
    moved = size(list(arguments)) + size(again) + size(result)
    return Cost("elementwise", bytes=moved, launches=_multi_tensor(lists[0], len(lists)))


@rule("aten::_fused_adamw_", "aten::_fused_adam_")
def _adam(arguments: Sequence[Any], result: Any) -> Cost:
    """Reads parameter, gradient and both moments, and writes all but the gradient."""
    parameters, gradients, first, second = ([*tensors(part)] for part in arguments[:4])
    moved = 2 * size([*parameters, *first, *second]) + size(gradients)
    return Cost("elementwise", bytes=moved, launches=_multi_tensor(parameters, 4))


def _multi_tensor(tensors: Sequence[Tensor], lists: int) -> int:
    """Launches of torch's multi-tensor kernels: each takes up to 320 chunks of 65,536 values of a few tensors."""
    most = (110, 64, 48, 36, 30)[min(lists, 5) - 1]
    chunks = sum(math.ceil(x.numel() / 65536) for x in tensors)
    return max(math.ceil(len(tensors) / most), math.ceil(chunks / 320))
