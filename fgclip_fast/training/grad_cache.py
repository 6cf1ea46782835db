"""The gradient of a large batch in the memory of a small one, exactly (arXiv 2101.06983).

The losses couple all samples of a batch, but only through their embeddings. So every micro-batch is embedded without a
graph; the losses are differentiated with respect to the embeddings alone; then each micro-batch is embedded again and
its rows of those gradients are backpropagated through it. This costs a second forward pass, and needs memory for the
activations of one micro-batch.
"""

from collections.abc import Callable, Sequence
from itertools import compress

import torch
from torch import Tensor, nn

from fgclip_fast.inputs.batch import Batch
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.training.distributed import without_averaging
from fgclip_fast.training.objective import Losses

Embed = Callable[[Batch], Embeddings]

# Embeddings have one row a sample, a region or a text; the other fields are bookkeeping or the model's scales.
ROWS = ("image", "short", "long", "regions", "region_texts", "hard_texts")
IDS = ("short_ids", "long_ids", "region_ids")
SCALES = ("scale", "region_scale", "hard_scale")


def backward(
    model: nn.Module, embed: Embed, batches: Sequence[Batch], losses_of: Callable[[Embeddings], Losses]
) -> Losses:
    """Add the gradient of ``losses_of``, over all ``batches`` together, to the model's parameters.

    Args:
        model: the network, or DDP around it: only the last micro-batch averages over the processes.
        embed: calls ``model`` on a batch, under autocast if the run uses it.
        batches: one batch, or its micro-batches, in order.
        losses_of: the objective over the joint embeddings.

    Returns:
        The losses, without a graph.
    """
    if len(batches) == 1:
        losses = losses_of(embed(batches[0]))
        losses.total.backward()
        return Losses(*(term.detach() for term in losses))
    with torch.no_grad():
        joint = join([embed(batch) for batch in batches])
    leaves = joint._replace(**{name: getattr(joint, name).requires_grad_() for name in (*ROWS, *SCALES)})
    losses = losses_of(leaves)
    losses.total.backward()
    _backpropagate(model, embed, batches, leaves)
    return Losses(*(term.detach() for term in losses))


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


def _backpropagate(model: nn.Module, embed: Embed, batches: Sequence[Batch], leaves: Embeddings) -> None:
    """Embed each micro-batch again and backpropagate its rows' gradients, with the last one also the scales'."""
    at = dict.fromkeys(ROWS, 0)
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        if last:
            _backpropagate_one(embed, batch, leaves, at, last)
        else:
            with without_averaging(model):
                _backpropagate_one(embed, batch, leaves, at, last)


def _backpropagate_one(embed: Embed, batch: Batch, leaves: Embeddings, at: dict[str, int], last: bool) -> None:
    embeddings = embed(batch)
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
