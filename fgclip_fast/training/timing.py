"""Where the time of a step goes: a few early steps are measured, all others pass untouched.

The towers are timed by hooks, forward and backward; what they leave of the forward and backward pass is the loss's.
On a GPU each mark waits for the device, so the measured steps are a little slower than the others.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

FIRST, COUNT = 20, 5
"""Steps that are measured, counted from the start of this process: allocators and caches are warm by then."""
TOWERS = {"vision": "vision_model", "text": "text_model"}


class Stopwatch:
    """Times the parts of a step: ``begin()`` before its data are asked for, then ``lap(name)`` after each part.

    Args:
        model: has ``vision_model`` and ``text_model``.
        note: is given the step, "time" and the seconds of each part of a measured step.
        device: where the model is.
        done: steps that were done before.
        first, count: the steps that are measured.
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
        self._seconds: dict[str, float] = {}
        self._since = self._mark = 0.0
        self._hooks: list[Any] = []

    @property
    def running(self) -> bool:
        """Whether this step is measured."""
        return self._step in self._steps

    def begin(self) -> None:
        """A step begins."""
        self._step += 1
        self._since = time.perf_counter()
        if self._step == self._steps.start:
            self._hooks = [
                hook for name, part in TOWERS.items() for hook in self._watch(name, getattr(self._model, part))
            ]
        if self.running:
            self._seconds = dict.fromkeys(TOWERS, 0.0)
            self._since = self._now()
        elif self._step == self._steps.stop:
            for hook in self._hooks:
                hook.remove()

    def lap(self, name: str) -> float:
        """What came since the last lap, without the towers' part of it, was ``name``; ``optimizer`` ends the step.

        Returns:
            Seconds since the last lap, in every step.
        """
        now = self._now() if self.running else time.perf_counter()
        seconds, self._since = now - self._since, now
        if self.running:
            towers = sum(self._seconds[tower] for tower in TOWERS) if name == "loss" else 0.0
            self._seconds[name] = max(0.0, seconds - towers)
            if name == "optimizer":
                self._note(self._done + self._step + 1, "time", self._seconds)
        return seconds

    def _watch(self, name: str, tower: nn.Module) -> list[Any]:
        """Times a tower: its forward as a whole, its backward from its output's gradient to its last parameter's."""

        def begin(*_: Any) -> None:
            self._mark = self._now()

        def end(*_: Any) -> None:
            if self.running:
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
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
