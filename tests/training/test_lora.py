"""Adapters: what they start from, their gradients, what is saved, and a run that is resumed with them."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch

from fgclip_fast.config import Config, Data, Lora, Optim
from fgclip_fast.inputs.texts import Texts
from fgclip_fast.model import pretrained
from fgclip_fast.model.block import full_weight
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.train import train
from fgclip_fast.training import checkpoint, lora
from tests.models import MINI

RANK3 = Lora(rank=3, alpha=6.0)
pytest.importorskip("peft", reason="needs peft: pip install 'fgclip_fast[lora]'")


def seeded(config=MINI):
    torch.manual_seed(0)
    return FGCLIP(config)


def with_adapters(config=RANK3, model=MINI):
    """A model whose adapters are no longer at their start."""
    made = seeded(model)
    lora.add(made, config)
    with torch.no_grad():
        for layer in lora.adapted(made).values():
            layer.lora_B["default"].weight.normal_(std=0.1)
    return made


def outputs(model, precision="fp32"):
    """Embeddings of pictures, boxes and texts of both paths, with gradients."""
    images = torch.arange(2 * 3 * 32 * 32, dtype=torch.float32).reshape(2, 3, 32, 32).sin()
    boxes, index = torch.tensor([[0.1, 0.2, 0.7, 0.9]]), torch.tensor([1])
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        tokens = model.tokenizer(["a red mug", "a blue mug on a table"], 77)
        return *model.encode_pixels(images, boxes, index), *model.encode_tokens(Texts(*tokens, 1).packed())


@pytest.mark.parametrize("towers", ["text", "vision", "both"])
def test_at_the_start_outputs_are_those_of_the_model_and_only_adapters_and_scales_train(towers):
    plain, model = seeded(), seeded()
    lora.add(model, Lora(rank=2, towers=towers))
    for a, b in zip(outputs(plain), outputs(model), strict=True):
        assert torch.equal(a, b)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    adapters = {name for name in trained if ".lora_" in name}
    assert trained - adapters == {"logit_scale", "logit_scale_finegraind", "logit_scale_hardneg"}
    assert {name.split("_")[0] for name in adapters} == ({"text", "vision"} if towers == "both" else {towers})
    blocks = {"text": 1, "vision": 2, "both": 3}[towers]
    assert len(adapters) == 2 * 6 * blocks


@pytest.mark.parametrize("recompute", ["none", "mlp", "blocks"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_those_of_a_dense_model_of_the_sums(precision, recompute):
    """With W' = W + s B A, the chain rule gives dB = s dW' A^T and dA = s B^T dW'."""
    model, dense = with_adapters(model=replace(MINI, recompute=recompute)), seeded()
    dense.load_state_dict(lora.merged_state(model))
    for network in (model, dense):
        found = outputs(network, precision)
        sum((x * torch.linspace(-1, 1, x.numel()).reshape(x.shape)).sum() for x in found).backward()
    for a, b in zip(outputs(model, precision), outputs(dense, precision), strict=True):
        assert torch.equal(a, b)
    for name, layer in lora.adapted(model).items():
        A, B, dW = layer.lora_A["default"].weight, layer.lora_B["default"].weight, dense.get_submodule(name).weight.grad
        for grad, expected in ((B.grad, 2 * dW @ A.T), (A.grad, 2 * B.T @ dW)):
            torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
        assert layer.base_layer.weight.grad is None
    assert model.visual_projection.weight.grad is None


def test_merged_it_is_a_plain_model_of_the_same_outputs(tmp_path):
    model = with_adapters()
    before = [x.detach() for x in outputs(model)]
    model.save(tmp_path / "model", lora.merged_state(model))
    lora.merge(model)
    assert not lora.adapted(model) and list(model.state_dict()) == list(seeded().state_dict())
    loaded = pretrained.load(tmp_path / "model")
    for a, b, c in zip(before, outputs(model), outputs(loaded), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


def test_an_adapter_that_the_user_switched_off_does_not_count():
    model = with_adapters()
    layer = next(iter(lora.adapted(model).values()))
    assert not torch.equal(full_weight(layer), layer.weight)
    layer.enable_adapters(False)
    assert torch.equal(full_weight(layer), layer.weight)
    layer.enable_adapters(True)
    layer.merge()
    assert torch.equal(full_weight(layer), layer.weight)


@pytest.fixture
def config(shards, tmp_path):
    data = Data(train=str(shards / "train-*.tar"), val=str(shards / "val-*.tar"), workers=0, window=2)
    return Config(
        model=MINI, data=data, optim=Optim(lr=3e-2, warmup=2, clip=1.0), batch_size=4, steps=4, checkpoint_every=2,
        lora=RANK3, keep=9, output=str(tmp_path / "run"), device="cpu", threads=1,
    )  # fmt: skip


def losses(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["total"] for line in lines if line["kind"] == "train"}


@pytest.mark.parametrize("micro_batch_size", [None, 3])
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_resumed_run_equals_one_that_never_stopped(config, average, micro_batch_size):
    optim = replace(config.optim, average=average, l2_start=0.1)
    best = dict(eval_every=1, keep_best="loss_total")
    config = replace(config, optim=optim, micro_batch_size=micro_batch_size, **best)
    whole = train(config)
    states = {step: (checkpoint.at(whole.path, step) / lora.FILE).read_bytes() for step in (2, 4)}
    weights = (checkpoint.at(whole.path, 4) / "model" / "model.safetensors").read_bytes()
    all_losses, kept = losses(whole.path), (whole.path / "best" / "best.json").read_bytes()
    shutil.rmtree(checkpoint.at(whole.path, 4))
    (whole.path / "log.jsonl").unlink()
    resumed = train(replace(config, resume="auto"))
    assert losses(resumed.path) == {step: loss for step, loss in all_losses.items() if step > 2}
    assert (checkpoint.at(resumed.path, 4) / lora.FILE).read_bytes() == states[4] != states[2]
    assert (checkpoint.at(resumed.path, 4) / "model" / "model.safetensors").read_bytes() == weights
    assert (whole.path / "best" / "best.json").read_bytes() == kept
    for run in (resumed.path, resumed.path / "best"):
        loaded = pretrained.load(run).state_dict()
        assert list(loaded) == list(seeded().state_dict())
    for name, value in pretrained.load(resumed.path).state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_micro_batches_give_the_same_run_and_the_loss_falls(config, tmp_path):
    config = replace(config, steps=12, checkpoint_every=0, data=replace(config.data, val=""))
    whole = list(losses(train(config).path).values())
    cached = train(replace(config, micro_batch_size=3, steps=2, output=str(tmp_path / "cached")))
    assert next(iter(losses(cached.path).values())) == pytest.approx(whole[0], rel=1e-5)
    assert sum(whole[-3:]) < 0.97 * sum(whole[:3])


def test_what_is_held_keeps_its_bits(config):
    run = train(replace(config, steps=2, lora=Lora(rank=2, towers="vision")))
    torch.manual_seed(config.seed)
    before = FGCLIP(MINI).state_dict()
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    scales = {name for name in changed if name.startswith("logit_scale")}
    assert len(changed - scales) == 12 and all(".encoder.layers." in name for name in changed - scales)
    assert all(name.startswith("vision_model.") and name.endswith("weight") for name in changed - scales)


def test_other_adapters_than_the_checkpoints_are_refused(config):
    run = train(replace(config, steps=2)).path
    with pytest.raises(ValueError, match=r"resume: lora.rank was 3 and is 0 now; go on from its weights, .* --init"):
        train(replace(config, lora=Lora(), resume=str(run)))
    with pytest.raises(ValueError, match=r"resume: lora.alpha was 6.0 and is None now"):
        train(replace(config, lora=Lora(rank=3), resume=str(run)))
    again = train(replace(config, init=str(run), steps=1, output=str(run.parent / "again")))
    assert (checkpoint.at(again.path, 1) / lora.FILE).is_file()


def test_freezing_beside_adapters_and_bad_values_are_refused(config):
    with pytest.raises(ValueError, match=r"freeze must be left out with lora.rank; .* got text"):
        replace(config, freeze="text")
    with pytest.raises(ValueError, match=r"lora.rank must be >= 0, got -1"):
        Lora(rank=-1)
    with pytest.raises(ValueError, match=r"lora.alpha must be > 0, got 0.0"):
        Lora(rank=1, alpha=0.0)


def test_without_peft_the_run_says_how_to_get_it_before_it_starts(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"lora.rank needs peft: pip install 'fgclip_fast\[lora\]'"):
        train(config)
    lora.check(Lora())
