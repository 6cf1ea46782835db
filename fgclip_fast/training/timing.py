"""Measure the parts of a few early steps: data, towers, loss, optimizer.

The towers are timed by hooks, forward and backward; the rest of the forward and backward pass is the loss's. On a GPU
each mark waits for the device, so the measured steps are a little slower; the others are not touched.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

FIRST, COUNT = 20, 5
"""First measured step and their number, from the start of this process; allocators and caches are warm by then."""
TOWERS = {"vision": "vision_model", "text": "text_model"}


class Stopwatch:
    """Times the parts of a step, between ``step_begins``, ``data_arrived``, ``gradients_done`` and ``step_ends``.

    Args:
        model: has ``vision_model`` and ``text_model``.
        note: called with the step, "time", and part → seconds, for each measured step.
        device: device of the model.
        done: steps done before this process began.
        first: first measured step, from 0.
        count: number of measured steps.
    """

    def __init__(
        self,
        model: nn.Module,
        note: Callable[[int, str, dict[str, float]], None],
        device: torch.device,
        done: int = 0,
        first: int = FIRST,
        count: int = COUNT,
    ) -> None:
        self._model, self._note, self._device, self._done = model, note, device, done
        self._steps = range(first, first + count)
        self._step = -1
        self._measuring = False
        self._seconds: dict[str, float] = {}
        self._since = self._mark = 0.0
        self._hooks: list[Any] = []

    def step_begins(self) -> None:
        """Call this before the data of a step are asked for."""
        self._step += 1
        self._measuring = self._step in self._steps
        if self._step == self._steps.start:
            self._hooks = [
                hook for name, part in TOWERS.items() for hook in self._watch(name, getattr(self._model, part))
            ]
        elif self._step == self._steps.stop:
            for hook in self._hooks:
                hook.remove()
        if self._measuring:
            self._seconds = dict.fromkeys(TOWERS, 0.0)
        self._since = self._now()

    def data_arrived(self) -> float:
        """Call this when the batch is on the device.

        Returns:
            Seconds of waiting for it, in every step.
        """
        return self._record("data")

    def gradients_done(self) -> None:
        """Call this after the backward pass; the part of it that no tower took is the loss's."""
        self._record("loss", of_others=sum(self._seconds.get(tower, 0.0) for tower in TOWERS))

    def step_ends(self) -> None:
        """Call this after the optimizer step; a measured step is noted."""
        self._record("optimizer")
        if self._measuring:
            self._note(self._done + self._step + 1, "time", self._seconds)

    def _record(self, name: str, of_others: float = 0.0) -> float:
        """Record the seconds since the last call under ``name``, less those that were recorded for other parts."""
        now = self._now()
        seconds, self._since = now - self._since, now
        if self._measuring:
            self._seconds[name] = max(0.0, seconds - of_others)
        return seconds

    def _watch(self, name: str, tower: nn.Module) -> list[Any]:
        """Time a tower: its forward pass, and its backward pass from the output's gradient to the last parameter's."""

        def begin(*_: Any) -> None:
            self._mark = self._now()

        def end(*_: Any) -> None:
            if self._measuring:
                now = self._now()
                self._seconds[name] += now - self._mark
                self._mark = now

        parameters = [p.register_post_accumulate_grad_hook(end) for p in tower.parameters() if p.requires_grad]
        return [
            tower.register_forward_pre_hook(begin),
            tower.register_forward_hook(end),
            tower.register_full_backward_pre_hook(begin),
            *parameters,
        ]

    def _now(self) -> float:
        if self._measuring and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
