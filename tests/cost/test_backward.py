"""The backward pass in Python gives the gradients of torch's engine."""

from dataclasses import replace

import pytest
import torch

from fgclip_fast.cost.backward import Backward
from fgclip_fast.cost.workload import stage2_batch
from fgclip_fast.model.network import Network
from fgclip_fast.presets import TINY
from fgclip_fast.training import grad_cache
from fgclip_fast.training.objective import objective


def gradients(model, batches):
    grad_cache.backward(model, model, batches, lambda embeddings: objective(embeddings, TINY.loss))
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("recompute", ["none", "mlp", "blocks"])
def test_gradients_are_those_of_the_engine(micro_batches, recompute):
    torch.manual_seed(0)
    model = Network(replace(TINY.model, recompute=recompute))
    batches = [stage2_batch(2, TINY.model.vision.image_size, "hard", seed) for seed in range(micro_batches)]
    expected, backward = gradients(model, batches), Backward()
    with backward.installed():
        found = gradients(model, batches)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
    assert not backward.saved()
