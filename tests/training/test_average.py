"""The moving average of weights, and its exchange with the trained ones."""

import pytest
import torch
from torch import nn

from fgclip_fast.training.average import Average


def test_early_steps_keep_less_than_the_decay_and_late_ones_as_much():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = Average(model, 0.5)
    nn.init.ones_(model.weight)
    average.update(1)  # keeps 2 / 11
    with average.in_model():
        assert model.weight.item() == pytest.approx(9 / 11)
    average.update(100)
    with average.in_model():
        assert model.weight.item() == pytest.approx(0.5 * 9 / 11 + 0.5)


def test_the_trained_weights_come_back_after_an_error_and_held_ones_are_left_alone():
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    average, first = Average(model, 0.9), model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    trained = model.weight.detach().clone()
    with pytest.raises(KeyboardInterrupt), average.in_model() as kept:
        assert torch.equal(model.weight, first) and list(kept) == ["weight"] and torch.equal(kept["weight"], trained)
        raise KeyboardInterrupt
    assert torch.equal(model.weight, trained)


def test_a_compiled_model_computes_with_the_average():
    model = nn.Linear(2, 1, bias=False)
    compiled = torch.compile(model, backend="aot_eager")
    average = Average(model, 0.9)
    with torch.no_grad():
        compiled(torch.ones(1, 2))
        model.weight += 1
        trained = compiled(torch.ones(1, 2))
        with average.in_model():
            torch.testing.assert_close(compiled(torch.ones(1, 2)), trained - 2)
