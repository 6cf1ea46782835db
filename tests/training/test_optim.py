"""Groups, schedule and the one update of a step."""

import math

import pytest
import torch
from torch import nn

from fgclip_fast.config import Optim
from fgclip_fast.training import optim


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.text_model = nn.Linear(3, 4)
        # Of two numbers the norm is ±1 whatever they are: gradients would be rounding alone, and AdamW scales them up.
        self.norm = nn.LayerNorm(4)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.norm(self.text_model(x)).sum() * self.logit_scale.exp() + self.text_model.weight.square().sum()


def decays(config):
    model = Small()
    groups = optim.adamw(model, config).param_groups
    return {
        n: g["weight_decay"] for n, p in model.named_parameters() for g in groups if any(p is q for q in g["params"])
    }


def test_norms_and_biases_do_not_decay_and_scales_do_as_released():
    assert decays(Optim(weight_decay=0.1)) == {
        "text_model.weight": 0.1, "text_model.bias": 0.0, "norm.weight": 0.0, "norm.bias": 0.0, "logit_scale": 0.1,
    }  # fmt: skip
    assert decays(Optim(weight_decay=0.1, decay_scales=False))["logit_scale"] == 0.0


def test_the_text_tower_may_have_its_own_rate():
    model = Small()
    optimizer = optim.adamw(model, Optim(lr=1e-3, text_lr=1e-4))
    rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rate[id(model.text_model.weight)] == 1e-4 and rate[id(model.norm.weight)] == 1e-3


def test_warm_up_is_linear_and_the_rest_half_a_cosine():
    optimizer = optim.adamw(Small(), config := Optim(lr=1.0, warmup=10))
    rates = [optim.set_lr(optimizer, config, step, 110) for step in range(110)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[60] == pytest.approx(0.5) and rates[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))


def test_a_run_shorter_than_its_warm_up_is_no_error():
    optimizer = optim.adamw(Small(), config := Optim(warmup=10))
    assert all(optim.set_lr(optimizer, config, step, 3) > 0 for step in range(3))


def test_equals_torchs_adamw_step_by_step():
    config = Optim(lr=1e-2, weight_decay=0.1, clip=0.5)
    ours, theirs = Small(), Small()
    theirs.load_state_dict(ours.state_dict())
    mine = optim.adamw(ours, config)
    plain = [p for n, p in theirs.named_parameters() if "bias" in n or "norm" in n]
    rest = [p for n, p in theirs.named_parameters() if not ("bias" in n or "norm" in n)]
    peer = torch.optim.AdamW(
        [{"params": rest, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=1e-2, betas=config.betas
    )
    for seed in range(5):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        ours(x).backward()
        theirs(x).backward()
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        peer.step()
        peer.zero_grad()
        measured, skipped = optim.update(ours, mine, config)
        assert measured == pytest.approx(norm.item()) and skipped == 0
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing(poison):
    model = Small()
    optimizer = optim.adamw(model, config := Optim(lr=0.1, clip=1.0))
    model(torch.ones(2, 3)).backward()
    optim.update(model, optimizer, config)
    before = [p.detach().clone() for p in model.parameters()]
    moments = [s["exp_avg"].clone() for s in optimizer.state.values()]
    model(torch.full((2, 3), poison)).backward()
    norm, skipped = optim.update(model, optimizer, config)
    assert skipped == 1 and not norm.isfinite()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(torch.equal(a, s["exp_avg"]) for a, s in zip(moments, optimizer.state.values(), strict=True))


def test_scales_can_be_bounded():
    model = Small()
    optimizer = optim.adamw(model, config := Optim(lr=1e-3, max_scale=2.0))
    model(torch.ones(2, 3)).backward()
    optim.update(model, optimizer, config)
    assert model.logit_scale.exp() <= 2.0 + 1e-6


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.vision_model = nn.Module()
        self.vision_model.embeddings = nn.Linear(2, 2)
        self.vision_model.encoder = nn.Module()
        self.vision_model.encoder.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.vision_model.post_layernorm = nn.LayerNorm(2)
        self.visual_projection = nn.Linear(2, 2)


def test_each_block_is_slower_than_the_one_above():
    model = Tower()
    groups = optim.adamw(model, Optim(lr=1.0, layer_decay=0.5)).param_groups
    rate = {name: group["peak"] for group in groups for name in group["param_names"]}
    assert rate["visual_projection.weight"] == rate["vision_model.post_layernorm.bias"] == 1.0
    blocks = [rate[f"vision_model.encoder.layers.{i}.weight"] for i in range(3)]
    assert blocks == [0.125, 0.25, 0.5] and rate["vision_model.embeddings.weight"] == 0.0625


def test_weights_are_pulled_to_their_start_by_a_share_of_the_distance():
    model = nn.Linear(2, 1, bias=False)
    optimizer = optim.adamw(model, config := Optim(lr=1e-2, l2_start=10.0, weight_decay=0.0))
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1.0
    model.weight.grad = torch.zeros(1, 2)
    optim.update(model, optimizer, config)
    torch.testing.assert_close(model.weight - start, torch.full((1, 2), 0.9))


def test_a_warm_up_below_one_is_a_share_of_the_steps():
    optimizer = optim.adamw(Small(), config := Optim(lr=1.0, warmup=0.1))
    assert [optim.set_lr(optimizer, config, step, 20) for step in range(2)] == [0.5, 1.0]


def test_moments_return_by_name_into_other_groups_with_the_new_rates():
    before, after = Small(), Small()
    old = optim.adamw(before, config := Optim(lr=0.1))
    before(torch.ones(2, 3)).backward()
    optim.update(before, old, config)
    new = optim.adamw(after, Optim(lr=0.01, text_lr=0.001, betas=(0.5, 0.6)))
    optim.load_state(new, optim.state_by_name(old))
    moments, restored = optim.state_by_name(old), optim.state_by_name(new)
    assert moments.keys() == restored.keys()
    assert all(torch.equal(moments[n]["exp_avg_sq"], restored[n]["exp_avg_sq"]) for n in moments)
    assert {g["lr"] for g in new.param_groups} == {0.01, 0.001} and new.param_groups[0]["betas"] == (0.5, 0.6)
