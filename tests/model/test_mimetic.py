"""Random weights have CLIP's spread, or start out local where that is asked for."""

from dataclasses import replace

import pytest
import torch

from fgclip_fast.config.model import Model, Text, Vision
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.positions import stretch

CONFIG = Model(
    vision=Vision(image_size=96, patch_size=8, width=128, layers=3, heads=4, mlp=512),
    text=Text(width=96, layers=2, heads=4, mlp=384),
    projection=96,
)
VISION, TEXT = "vision_model.encoder.layers.0.", "text_model.encoder.layers.1."


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return FGCLIP(CONFIG).state_dict()


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("text_model.embeddings.token_embedding.weight", 0.02),
        ("text_model.embeddings.position_embedding.weight", 0.02),
        ("vision_model.embeddings.patch_embedding.weight", 0.02),
        ("vision_model.embeddings.position_embedding.weight", 0.02),
        ("vision_model.embeddings.class_embedding", 128**-0.5),
        (VISION + "self_attn.q_proj.weight", 128**-0.5 * 6**-0.5),
        (VISION + "self_attn.out_proj.weight", 128**-0.5),
        (VISION + "mlp.fc1.weight", 256**-0.5),
        (TEXT + "self_attn.v_proj.weight", 96**-0.5 * 4**-0.5),
        (TEXT + "mlp.fc2.weight", 96**-0.5 * 4**-0.5),
        ("visual_projection.weight", 128**-0.5),
        ("text_filip_projection.weight", 96**-0.5),
    ],
)
def test_spread_is_clips(state, name, std):
    assert state[name].std().item() == pytest.approx(std, rel=0.15)


def test_biases_are_zero_and_scales_those_of_a_temperature_of_7_percent(state):
    assert all((value == 0).all() for name, value in state.items() if name.endswith("bias"))
    assert all((value == 1).all() for name, value in state.items() if "norm" in name and name.endswith("weight"))
    scales = [state[name].item() for name in ("logit_scale", "logit_scale_finegraind", "logit_scale_hardneg")]
    assert scales == pytest.approx([2.6592] * 3)


def test_long_tables_start_as_the_stretched_short_one(state):
    prefix = "text_model.embeddings.position_embedding"
    for name in ("ori", "res"):
        assert torch.equal(state[f"{prefix}_{name}.weight"], stretch(state[f"{prefix}.weight"]))


def test_stretch_of_a_line_is_a_line_from_position_20_on():
    table = torch.arange(77.0)[:, None].expand(-1, 2)
    expected = torch.cat([torch.arange(20.0), 20 + torch.arange(228.0) / 4])
    torch.testing.assert_close(stretch(table), expected[:, None].expand(-1, 2))


def test_seed_decides():
    def make(seed):
        torch.manual_seed(seed)
        return FGCLIP(CONFIG).visual_projection.weight

    assert torch.equal(make(1), make(1)) and not torch.equal(make(1), make(2))


def test_mimetic_starts_local():
    torch.manual_seed(0)
    model = FGCLIP(replace(CONFIG, mimetic=True))
    first, _, last = model.vision_model.encoder.blocks()
    attention = first.self_attn
    heads = [w.weight.view(4, 32, 128) for w in (attention.q_proj, attention.k_proj)]
    similarity = sum(q.T @ k for q, k in zip(*heads, strict=True))
    assert similarity.diagonal().mean() > 10 * similarity.fill_diagonal_(0).abs().mean()
    copied = attention.out_proj.weight @ attention.v_proj.weight
    assert copied.diagonal().mean().item() == pytest.approx(-0.4, abs=0.05)
    assert (last.self_attn.out_proj.weight @ last.self_attn.v_proj.weight).diagonal().mean().abs() < 0.1


def test_mimetic_positions_know_their_neighbours():
    torch.manual_seed(0)
    positions = FGCLIP(replace(CONFIG, mimetic=True)).vision_model.embeddings.position_embedding.weight[1:].detach()
    assert positions.std().item() == pytest.approx(0.3, rel=0.01)
    similarity = torch.nn.functional.normalize(positions - positions.mean(0)) @ positions[5 * 12 + 5]
    near, far = similarity.view(12, 12)[4:7, 4:7].mean(), similarity.view(12, 12)[9:, 9:].mean()
    assert similarity.argmax() == 5 * 12 + 5 and near > far
