"""An exponential moving average of the trained weights, which is evaluated and saved in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """The moving average of a model's trained weights; with ``decay`` 0 there is none, and every call does nothing.

    Values are exchanged in place, so that compiled code and optimizers keep their tensors.

    Args:
        model: its parameters that have gradients are averaged, from their values now.
        decay: share of the average that a step keeps, in [0, 1). Early steps keep less, (1 + step) / (10 + step), so
            that a short run does not stay at its start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = {n: p for n, p in model.named_parameters() if p.requires_grad} if decay > 0 else {}
        self._other = {name: p.detach().clone() for name, p in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after ``step`` (from 1)."""
        if self._weights:
            decay = min(self._decay, (1 + step) / (10 + step))
            get_ema_multi_avg_fn(decay)([*self._other.values()], [*self._weights.values()], torch.tensor(step))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and the average."""
        for name, weight in self._weights.items():
            kept = weight.clone()
            weight.copy_(self._other[name])
            self._other[name].copy_(kept)

    @contextmanager
    def in_model(self) -> Iterator[Mapping[str, Tensor]]:
        """A context in which the model holds the average; gives the trained weights, by name."""
        self.swap()
        try:
            yield self._other
        finally:
            self.swap()
