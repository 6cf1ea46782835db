"""The backward pass in Python, node by node: torch's own engine needs a thread for each real device.

It does what the engine does, in its order: nodes by sequence number, gradients of a tensor with several uses added up,
each brought to the shape and dtype of its tensor, what a node has saved freed after it has run.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any
from unittest.mock import patch
from weakref import WeakSet

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.utils.checkpoint import GraphExecGroup

Node = Any  # torch.autograd.graph.Node, with attributes that its stub does not have


class Saved:
    """A tensor that autograd saved for a node; ``tensor`` is None once the node has run."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor: Tensor | None = tensor


class Backward:
    """Stands in for ``torch.autograd.backward`` while it is :meth:`installed`.

    Args:
        begins: Called as each backward pass begins.
    """

    def __init__(self, begins: Callable[[], None] = lambda: None) -> None:
        self._begins = begins
        self._saved: WeakSet[Saved] = WeakSet()
        self._unpacked: list[Saved] = []

    def saved(self) -> list[Tensor]:
        """The tensors that autograd holds for nodes that have not run."""
        return [saved.tensor for saved in self._saved if saved.tensor is not None]

    @contextmanager
    def installed(self) -> Iterator[None]:
        """A context whose backward passes run here."""
        hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)
        noted = patch.object(FunctionCtx, "set_materialize_grads", _set_materialize_grads)
        with patch.object(torch.autograd, "backward", self._run), noted, hooks:
            yield

    def _pack(self, tensor: Tensor) -> Saved:
        saved = Saved(tensor)
        self._saved.add(saved)
        return saved

    def _unpack(self, saved: Saved) -> Tensor:
        if saved.tensor is None:
            raise RuntimeError("step cost: a node was asked for its saved tensors twice")
        self._unpacked.append(saved)
        return saved.tensor

    def _run(self, tensors: Tensor | Sequence[Tensor], grad_tensors: Any = None, *flags: Any, **options: Any) -> None:
        if any(flags) or any(options.values()):
            raise NotImplementedError("step cost: backward must run without retain_graph, create_graph and inputs")
        roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
        grads = [grad_tensors] if isinstance(grad_tensors, Tensor) else list(grad_tensors or [None] * len(roots))
        self._begins()
        with torch.no_grad(), GraphExecGroup():  # the group has each block recomputed once
            self._walk(roots, grads)

    def _walk(self, roots: list[Tensor], grads: list[Tensor | None]) -> None:
        inputs: dict[Node, list[Tensor | None]] = {}
        edges = [torch.autograd.graph.get_gradient_edge(root) for root in roots]
        for root, grad, edge in zip(roots, grads, edges, strict=True):
            _receive(inputs, edge.node, edge.output_nr, torch.ones_like(root) if grad is None else grad)
        waiting, order = _uses([edge.node for edge in edges]), count()
        ready = [(-_rank(node), next(order), node) for node in inputs if not waiting[node]]
        heapq.heapify(ready)
        while ready:
            node = heapq.heappop(ready)[2]
            passed = self._call(node, inputs.pop(node, []))
            for (next_node, number), grad in zip(node.next_functions, passed, strict=False):
                if next_node is None:
                    continue
                if grad is not None:
                    _receive(inputs, next_node, number, grad)
                waiting[next_node] -= 1
                if not waiting[next_node]:
                    heapq.heappush(ready, (-_rank(next_node), next(order), next_node))
            del passed, node

    def _call(self, node: Node, grads: list[Tensor | None]) -> Sequence[Tensor | None]:
        """Gradients of the node's inputs; frees what it has saved."""
        if all(grad is None for grad in grads):
            return [None] * len(node.next_functions)
        if hasattr(node, "variable"):
            _accumulate(node.variable, grads[0])
            return []
        self._unpacked.clear()
        if isinstance(node, BackwardCFunction):
            # A Python function gets zeros for absent gradients, unless it has asked for None.
            if not getattr(node, "takes_none", False):
                pairs = zip(grads, node._input_metadata, strict=True)  # type: ignore[attr-defined]
                grads = [_zeros(like) if grad is None else grad for grad, like in pairs]
            passed = node.apply(*grads)
            passed = passed if isinstance(passed, tuple) else (passed,)
            # It returns one for each argument. Tensors alone have an edge, and it leads nowhere if none is needed.
            wanted = iter([grad for grad, needed in zip(passed, node.needs_input_grad, strict=False) if needed])
            passed = [None if target is None else next(wanted) for target, _ in node.next_functions]
        else:
            passed = node(*grads)
        for saved in self._unpacked:
            saved.tensor = None
        self._unpacked.clear()
        return passed if isinstance(passed, tuple | list) else (passed,)


def _set_materialize_grads(context: Any, value: bool) -> None:
    """Stands in for torch's method, and notes the choice, since it cannot be read back."""
    context.materialize_grads, context.takes_none = value, not value


def _uses(roots: list[Node]) -> Counter[Node]:
    """Count the edges that lead to each node of the graph."""
    uses: Counter[Node] = Counter()
    seen, stack = set(roots), list(set(roots))
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None:
                uses[node] += 1
                if node not in seen:
                    seen.add(node)
                    stack.append(node)
    return uses


def _rank(node: Node) -> int:
    """As the engine: leaves at once, then the node that was made last."""
    return 2**62 if hasattr(node, "variable") else node._sequence_nr()


def _receive(inputs: dict[Node, list[Tensor | None]], node: Node, number: int, grad: Tensor) -> None:
    """Adds a gradient to what a node will be called with, in the shape and dtype of the tensor that it belongs to."""
    like = node.variable if hasattr(node, "variable") else node._input_metadata[number]
    if list(grad.shape) != list(like.shape):
        grad = grad.sum_to_size(like.shape)
    if grad.dtype != like.dtype:
        grad = grad.to(like.dtype)
    slots = inputs.setdefault(node, [None] * (1 if hasattr(node, "variable") else len(node._input_metadata)))
    held = slots[number]
    slots[number] = grad if held is None else held + grad


def _accumulate(leaf: Tensor, grad: Tensor | None) -> None:
    if grad is None:
        return
    if leaf.grad is None:
        leaf.grad = grad.detach() if grad.is_contiguous() else grad.clone(memory_format=torch.contiguous_format)
    else:
        leaf.grad.add_(grad)


def _zeros(like: Any) -> Tensor:
    return torch.zeros(like.shape, dtype=like.dtype, device=like.device)
