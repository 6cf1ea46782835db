"""The gradient of a large batch in the memory of a small one, exactly (arXiv 2101.06983).

The losses couple all samples of a batch, but only through their embeddings. So every micro-batch is embedded without a
graph; the losses are differentiated with respect to the embeddings alone; then each micro-batch is embedded again and
its rows of those gradients are backpropagated through it. This costs a second forward pass, and needs memory for the
activations of one micro-batch. A tower that is held still keeps no activations, so it runs once.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import compress
from typing import Protocol

import torch
from torch import Tensor, nn

from fgclip_fast.config import Config
from fgclip_fast.inputs.batch import Batch
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.training import distributed, freezing
from fgclip_fast.training.distributed import Processes, without_averaging
from fgclip_fast.training.objective import Losses, objective


class Embed(Protocol):
    """The call of a network, under autocast if the run uses it, that :func:`backward` needs."""

    def __call__(self, batch: Batch, known: Embeddings | None = None) -> Embeddings: ...


def embedder(network: nn.Module, device_type: str, bf16: bool) -> Embed:
    """Make the call of ``network``, or of DDP around it, with its products in bf16 or fp32."""

    def embed(batch: Batch, known: Embeddings | None = None) -> Embeddings:
        with torch.autocast(device_type, torch.bfloat16, enabled=bf16):
            return network(batch, known)

    return embed


def of_run(model: nn.Module, config: Config, processes: Processes) -> Callable[[Sequence[Batch]], Losses]:
    """Make the call that adds the gradient of a run's objective over a batch, or its micro-batches, to a model's.

    Args:
        model: the network; of several processes it is wrapped in DDP here.
        config: precision of the products, and weights of the losses.
        processes: that share the global losses.
    """
    network = distributed.wrap(model, processes)
    embed = embedder(network, processes.device.type, config.precision == "bf16")
    losses_of = partial(objective, weights=config.loss, group=processes.group)
    return lambda batches: backward(network, embed, batches, losses_of)


# Embeddings have one row a sample, a region or a text; the other fields are bookkeeping or the model's scales.
ROWS = ("image", "short", "long", "regions", "region_texts", "hard_texts")
IDS = ("short_ids", "long_ids", "region_ids")
SCALES = ("scale", "region_scale", "hard_scale")


def backward(
    model: nn.Module,
    embed: Embed,
    batches: Sequence[Batch],
    losses_of: Callable[[Embeddings], Losses],
    gradient: Tensor | None = None,
) -> Losses:
    """Add the gradient of ``losses_of``, over all ``batches`` together, to the model's parameters.

    Args:
        model: the network, or DDP around it: only the last micro-batch averages over the processes.
        embed: calls ``model`` on a batch, and, the second time, on its embeddings of the first time.
        batches: one batch, or its micro-batches, in order.
        losses_of: the objective over the joint embeddings.
        gradient: Tensor[], that of an outer loss with respect to the total: its weight there, a share of accumulated
            steps, a gradient scaler's factor. None: 1.

    Returns:
        The losses, without a graph.
    """
    if len(batches) == 1 or freezing.holds_towers(model):
        losses = losses_of(_joint_with_graph(model, embed, batches))
        losses.total.backward(gradient)
        return Losses(*(term.detach() for term in losses))
    with torch.no_grad():
        parts = [embed(batch) for batch in batches]
        joint = join(parts)
    leaves = joint._replace(**{name: getattr(joint, name).requires_grad_() for name in (*ROWS, *SCALES)})
    losses = losses_of(leaves)
    losses.total.backward(gradient)
    _backpropagate(model, embed, batches, parts, leaves)
    return Losses(*(term.detach() for term in losses))


def _joint_with_graph(model: nn.Module, embed: Embed, batches: Sequence[Batch]) -> Embeddings:
    """Embed one batch, or the micro-batches of towers held still, whose graph is but the projections'."""
    if len(batches) == 1:
        return embed(batches[0])
    with without_averaging(model):
        parts = [embed(batch) for batch in batches[:-1]]
    return join([*parts, embed(batches[-1])])


def join(parts: Sequence[Embeddings]) -> Embeddings:
    """Join the embeddings of consecutive micro-batches to those of one batch."""
    first = parts[0]
    rows = {name: torch.cat([getattr(p, name) for p in parts]) for name in (*ROWS, *IDS)}
    regions, texts, hard_region, hard_offsets = 0, 0, [], [first.hard_offsets[:1]]
    for part in parts:
        hard_region.append(part.hard_region + regions)
        hard_offsets.append(part.hard_offsets[1:] + texts)
        regions, texts = regions + len(part.regions), texts + len(part.hard_texts)
    scales = {name: getattr(first, name).clone() for name in SCALES}
    return Embeddings(**rows, hard_region=torch.cat(hard_region), hard_offsets=torch.cat(hard_offsets), **scales)


def _backpropagate(
    model: nn.Module, embed: Embed, batches: Sequence[Batch], known: Sequence[Embeddings], leaves: Embeddings
) -> None:
    """Embed each micro-batch again and backpropagate its rows' gradients, with the last one also the scales'."""
    at = dict.fromkeys(ROWS, 0)
    for number, (batch, before) in enumerate(zip(batches, known, strict=True), start=1):
        last = number == len(batches)
        with nullcontext() if last else without_averaging(model):
            _backpropagate_one(embed(batch, before), leaves, at, last)


def _backpropagate_one(embeddings: Embeddings, leaves: Embeddings, at: dict[str, int], last: bool) -> None:
    outputs: list[Tensor] = []
    gradients: list[Tensor] = []
    for name in ROWS:
        rows = getattr(embeddings, name)
        outputs.append(rows)
        gradients.append(_gradient(getattr(leaves, name))[at[name] : at[name] + len(rows)])
        at[name] += len(rows)
    for name in SCALES:
        gradient = _gradient(getattr(leaves, name))
        outputs.append(getattr(embeddings, name))
        gradients.append(gradient if last else torch.zeros_like(gradient))
    trained = [output.requires_grad for output in outputs]  # False for a frozen tower or scale
    torch.autograd.backward(list(compress(outputs, trained)), list(compress(gradients, trained)))


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
