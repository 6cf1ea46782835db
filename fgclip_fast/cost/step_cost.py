"""The cost of one training step on a card, counted on any machine: the step runs on tensors without values."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from fgclip_fast.config import Config
from fgclip_fast.cost import own_rules
from fgclip_fast.cost.backward import Backward
from fgclip_fast.cost.cards import Card
from fgclip_fast.cost.counter import Operation, StepCounter
from fgclip_fast.cost.fake_cuda import DEVICE, fake_cuda
from fgclip_fast.cost.rules import Kind
from fgclip_fast.inputs.batch import Batch, replace_leaves
from fgclip_fast.model.network import Network
from fgclip_fast.training import grad_cache, optim
from fgclip_fast.training.distributed import Processes, StopFlag
from fgclip_fast.training.host_copy import BatchCopy
from fgclip_fast.training.monitor import Monitor
from fgclip_fast.training.objective import Losses, objective

PHASES = ("forward", "backward", "optimizer")
__all__ = ["PHASES", "StepCost", "own_rules", "step_cost"]


@dataclass(frozen=True)
class StepCost:
    """The counts of one step.

    Attributes:
        operations: Each operation on the device, in order, without views and allocations.
        waits: How often the host waited for the device, by reason and place.
        saved: Bytes that autograd held for the backward pass as it began, without the weights: the most of all passes.
        resident: Bytes of weights, optimizer state and batch, held throughout.
        peak: Bytes at the fullest moment.
    """

    operations: tuple[Operation, ...]
    waits: Counter[tuple[str, str]]
    saved: int
    resident: int
    peak: int

    def of(self, *kinds: Kind, phase: str | None = None) -> list[Operation]:
        """The operations of these kinds (all, if none is named) in one phase, or in the whole step."""
        return [x for x in self.operations if (not kinds or x.cost.kind in kinds) and phase in (None, x.phase)]

    def seconds(self, card: Card, *kinds: Kind) -> float:
        """The least time of these operations (all, if none is named) at the card's stated peaks.

        Each takes what its products or its bytes need, whichever is more. Copies from and to the host and between
        processes run beside the others and take none.
        """
        costs = [x.cost for x in self.of(*kinds) if x.cost.kind not in ("copy", "collective")]
        return sum(max(cost.flops / card.rate(cost.dtype), cost.bytes / card.bandwidth) for cost in costs)

    def utilisation(self, card: Card, attained: Card | None = None) -> float:
        """Model FLOPs utilisation (MFU): the share of the card's stated rate that the counts allow.

        Model FLOPs are three times those of the towers' forward pass, whatever is computed again.

        Args:
            card: Whose rate the share is of.
            attained: The rates that the step's time is at, where they are thought to be lower than stated.
        """
        forward = sum(x.cost.flops for x in self.of("product", "attention", phase="forward"))
        return 3 * forward / card.half / self.seconds(attained or card)

    def fits(self, card: Card) -> bool:
        """Compare the step's fullest moment with the card's memory."""
        return self.peak <= card.usable


def step_cost(config: Config, batches: Sequence[Batch], processes: Processes | None = None) -> StepCost:
    """Counts one step of ``config`` on a card with all kernels of this package; about five seconds, no card needed.

    The step is that of ``train``: batch to the device, towers under autocast, losses, backward pass, update, metrics
    and stop flag. Compiled blocks are counted as they run uncompiled.

    Args:
        config: The run; of its ``model``, ``packing`` must not be "none".
        batches: The micro-batches of one step, or the batch alone; only their shapes are used.
        processes: This process among others, whose group may be torch's "fake" one; None: alone.

    Raises:
        ValueError: Texts are padded: their length is known to their values only.
    """
    if any(batch.texts.tree is None for batch in batches):
        raise ValueError("step cost: model.packing must be prefix-tree or padding-free, got none")
    counter, saved = StepCounter(), [0]

    def begins() -> None:
        weights = _storages(step.network.parameters())
        held = _storages(backward.saved())
        saved.append(sum(nbytes for key, nbytes in held.items() if key not in weights))
        counter.phase = "backward"

    backward = Backward(begins)
    with TemporaryDirectory() as folder, fake_cuda(counter), backward.installed():
        step = _Step(config, processes or Processes(0, 1, None, DEVICE), Path(folder), counter)
        resident = step.run([_without_values(batch) for batch in batches])
        cost = StepCost(tuple(counter.operations), counter.waits.copy(), max(saved), resident, counter.memory.peak)
        step.monitor.close()
    return cost


class _Step:
    """The loop of ``train`` for one step; what a first step makes (moments, metrics to read) is made before."""

    def __init__(self, config: Config, processes: Processes, folder: Path, counter: StepCounter) -> None:
        self.config, self.processes, self.counter = config, processes, counter
        with DEVICE:
            self.network = Network(replace(config.model, compile=False)).train()
        self.optimizer = optim.adamw(self.network, config.optim)
        self.monitor = Monitor(folder, steps=2, writes=processes.first, quiet=True)
        self.stop, self.to_device = StopFlag(processes), BatchCopy(DEVICE)
        for parameter in self.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self._end(Losses(*torch.zeros(len(Losses._fields), device=DEVICE)), 1)

    def run(self, batches: list[Batch]) -> int:
        """One step, counted; returns the bytes that are held throughout."""
        counter, config = self.counter, self.config
        counter.waits.clear()
        counter.step += 1
        micro_batches = self.to_device(batches)
        counter.operations.clear()
        resident = counter.memory.peak = counter.memory.live
        counter.phase = "forward"
        losses_of = partial(objective, weights=config.loss, group=self.processes.group)
        embed = grad_cache.embedder(self.network, "cuda", config.precision != "fp32")
        losses = grad_cache.backward(self.network, embed, micro_batches, losses_of)
        self._end(losses, 2)
        return resident

    def _end(self, losses: Losses, step: int) -> None:
        self.counter.phase = "optimizer"
        norm, skipped = optim.update(self.network, self.optimizer, self.config.optim)
        self.monitor.record(step, losses, norm, skipped, 0.0, 1, 1)
        self.stop.agreed(False)


def _without_values(batch: Batch) -> Batch:
    return replace_leaves(batch, Tensor, lambda x: torch.empty(x.shape, dtype=x.dtype))


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of the different storages of tensors."""
    storages = (x.untyped_storage() for x in tensors)
    return {storage._cdata: storage.nbytes() for storage in storages}
