"""The gradient of a large batch in the memory of a small one, exactly (arXiv 2101.06983).

The losses couple all samples of a batch, but only through their embeddings. So: embed every micro-batch without a
graph, take the losses and their gradients on the embeddings alone, then embed each micro-batch again and send those
gradients through it. Twice the forward arithmetic; the activations of one micro-batch.
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
    """Adds the gradient of ``losses_of`` over all ``batches`` together to the model's parameters.

    Args:
        model: the network, or DDP around it: only the last micro-batch averages over the processes.
        embed: calls ``model`` on a batch, under autocast where that is wanted.
        batches: one batch, or the micro-batches that make it up, in order.
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
    _send_back(model, embed, batches, leaves)
    return Losses(*(term.detach() for term in losses))


def join(parts: Sequence[Embeddings]) -> Embeddings:
    """The embeddings of consecutive micro-batches as those of one batch."""
    first = parts[0]
    rows = {name: torch.cat([getattr(p, name) for p in parts]) for name in (*ROWS, *IDS)}
    regions, texts, hard_region, hard_offsets = 0, 0, [], [first.hard_offsets[:1]]
    for part in parts:
        hard_region.append(part.hard_region + regions)
        hard_offsets.append(part.hard_offsets[1:] + texts)
        regions, texts = regions + len(part.regions), texts + len(part.hard_texts)
    scales = {name: getattr(first, name).clone() for name in SCALES}
    return Embeddings(**rows, hard_region=torch.cat(hard_region), hard_offsets=torch.cat(hard_offsets), **scales)


def _send_back(model: nn.Module, embed: Embed, batches: Sequence[Batch], leaves: Embeddings) -> None:
    """Embeds each micro-batch again and sends the rows' gradients through it, the scales' with the last one."""
    at = dict.fromkeys(ROWS, 0)
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        if last:
            _pass(embed, batch, leaves, at, last)
        else:
            with without_averaging(model):
                _pass(embed, batch, leaves, at, last)


def _pass(embed: Embed, batch: Batch, leaves: Embeddings, at: dict[str, int], last: bool) -> None:
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
    trained = [output.requires_grad for output in outputs]  # not those of a tower or a scale that is frozen
    torch.autograd.backward(list(compress(outputs, trained)), list(compress(gradients, trained)))


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
