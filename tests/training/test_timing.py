"""The stopwatch: parts of a few steps add up to them, and no step is changed by being measured."""

import time

import torch
from torch import nn

from fgclip_fast.training.timing import Stopwatch


class Slow(nn.Module):
    """A tower that takes its time, forward and backward."""

    def __init__(self, seconds):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        result = self.weight * x
        if result.requires_grad:
            result.register_hook(lambda grad: time.sleep(self.seconds))
        return result, None


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.text_model, self.vision_model = Slow(0.01), Slow(0.03)

    def forward(self, x):
        return (self.text_model(x)[0] * self.vision_model(x)[0]).sum()


def run(steps, first=1, count=2):
    """The notes of some steps, and the gradients of the last."""
    model, notes = Towers(), []
    watch = Stopwatch(model, lambda *note: notes.append(note), torch.device("cpu"), done=100, first=first, count=count)
    for _ in range(steps):
        model.zero_grad()
        watch.step_begins()
        time.sleep(0.02)
        watch.data_arrived()
        model(torch.arange(3.0)).backward()
        watch.gradients_done()
        time.sleep(0.005)
        watch.step_ends()
    return notes, model


def test_parts_are_those_of_the_step():
    notes, _ = run(2, first=1, count=1)
    ((step, kind, seconds),) = notes
    assert (step, kind) == (102, "time")
    assert list(seconds) == ["vision", "text", "data", "loss", "optimizer"]
    assert seconds["vision"] >= 0.06 and seconds["text"] >= 0.02 and seconds["data"] >= 0.02
    assert seconds["vision"] > seconds["text"] and seconds["optimizer"] >= 0.005


def test_other_steps_pass_unmeasured_and_hooks_go():
    notes, model = run(5, first=1, count=2)
    assert [step for step, _, _ in notes] == [102, 103]
    assert not model.vision_model._forward_hooks and not model.text_model._backward_pre_hooks


def test_a_measured_step_has_the_same_gradients():
    gradients = [run(2, first=first, count=1)[1].vision_model.weight.grad for first in (1, 50)]
    assert torch.equal(*gradients)
