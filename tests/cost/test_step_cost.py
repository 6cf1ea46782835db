"""Counts of the whole step, held by bars; docs and benchmarks take the same counts at 512 images."""

from dataclasses import replace
from functools import cache
from typing import get_args

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from fgclip_fast.config import Card
from fgclip_fast.cost import CARDS, Fit, fit, step_cost, table, verdict
from fgclip_fast.cost.fake_cuda import DEVICE
from fgclip_fast.cost.fit import resized
from fgclip_fast.cost.workload import stage2_batch
from fgclip_fast.inputs import image
from fgclip_fast.presets import PRESETS
from fgclip_fast.training.distributed import Processes

B16 = PRESETS["stage2-vit-b16"]
H100 = CARDS["h100"]
IMAGES = 16
SHALLOW = replace(
    B16,
    model=replace(B16.model, vision=replace(B16.model.vision, layers=2), text=replace(B16.model.text, layers=2)),
)


@cache
def batch(workload="hard", images=IMAGES):
    return stage2_batch(images, 224, workload)


@cache
def b16(workload):
    return step_cost(B16, [batch(workload)])


@cache
def shallow():
    return step_cost(SHALLOW, [batch()])


def total(cost, field, *kinds, phase=None):
    return sum(getattr(x.cost, field) for x in cost.of(*kinds, phase=phase))


def by_hand(model, batch):
    """FLOPs of a forward pass through both towers' blocks, the patches and the projections."""
    B, T, texts = len(batch.image), len(batch.texts.tree.token), len(batch.texts.tree.pooled)
    vision, text, D = model.vision, model.text, model.projection
    tokens = B * (vision.grid**2 + 1)
    flops = 0
    for part, rows, last in ((vision, tokens, tokens), (text, T, texts)):
        attention = 4 * 2 * part.width**2 * rows
        mlp = 2 * 2 * part.width * part.mlp * rows
        flops += part.layers * (attention + mlp) - (rows - last) * (2 * part.width**2 + 4 * part.width * part.mlp)
    flops -= 2 * vision.width**2 * B * vision.grid**2  # of the last block's queries only the class token's
    flops += 2 * vision.width * 3 * vision.patch_size**2 * B * vision.grid**2
    return flops + 2 * D * (vision.width * (B + len(batch.boxes)) + text.width * texts)


@pytest.mark.parametrize("workload", ["hard", "finehard"])
def test_products_are_those_by_hand(workload):
    forward = total(b16(workload), "flops", "product", phase="forward")
    assert forward == by_hand(B16.model, batch(workload))
    # Twice as many backward, but for the gradient of the pixels, which nobody wants.
    pixels = 2 * 768 * 3 * 16**2 * IMAGES * 14**2
    assert total(b16(workload), "flops", "product", phase="backward") == 2 * forward - pixels


def test_a_step_is_within_its_bars():
    """Per image and in total; a change that lowers a count lowers its bar."""
    cost = b16("hard")
    assert total(cost, "bytes", "elementwise") / IMAGES <= 1.07e9
    assert cost.saved / IMAGES <= 0.136e9
    assert sum(x.cost.cast for x in cost.operations) <= 6
    assert len(cost.operations) <= 690
    assert total(cost, "launches") <= 1050


@pytest.mark.parametrize(
    "name",
    [
        "stage2-vit-b16",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("stage2-vit-l14", "stage1-vit-b16", "stage1-vit-l14")),
    ],
)
def test_a_preset_fits_a_card_of_80_gb(name):
    """With four hard regions an image; the other micro-batches of a step need no more than the first two."""
    config = PRESETS[name]
    images = config.micro_batch_size or config.batch_size
    passes = 2 if config.micro_batch_size else 1
    workload = "hard" if config.loss.hard_negative else "finehard"
    side = config.model.vision.image_size
    assert step_cost(config, [stage2_batch(images, side, workload, seed) for seed in range(passes)]).fits(H100)


def test_the_host_waits_for_nothing_in_a_step():
    """Metrics and stop flag are read one step late; waiting for the step before is none in this step."""
    assert not b16("hard").waits


@pytest.mark.parametrize("rank", [0, 7])
def test_the_host_waits_for_nothing_in_a_step_of_a_group(rank):
    dist.init_process_group("fake", rank=rank, world_size=8, store=FakeStore())
    try:
        cost = step_cost(SHALLOW, [batch()], Processes(rank, 8, dist.group.WORLD, DEVICE))
    finally:
        dist.destroy_process_group()
    assert not cost.waits
    assert any(x.cost.kind == "collective" for x in cost.operations)


def test_memory_holds_weights_moments_gradients_and_activations():
    cost = b16("hard")
    weights = 4 * sum(x.numel() for x in _parameters(B16))
    assert cost.resident >= 3 * weights
    assert cost.peak >= cost.resident + cost.saved
    assert cost.peak <= cost.resident + 1.1 * cost.saved + weights


def test_checkpointing_saves_less_and_multiplies_more():
    recomputed = step_cost(replace(SHALLOW, model=replace(SHALLOW.model, recompute="blocks")), [batch()])
    forward, backward = (total(recomputed, "flops", "product", phase=phase) for phase in ("forward", "backward"))
    assert recomputed.saved < 0.5 * shallow().saved
    assert 2.5 * forward < backward < 3 * forward
    assert recomputed.utilisation(H100) < shallow().utilisation(H100)


def test_recomputing_the_mlp_saves_less_for_a_ninth_more_products():
    recomputed = step_cost(replace(SHALLOW, model=replace(SHALLOW.model, recompute="mlp")), [batch()])
    assert recomputed.saved < 0.77 * shallow().saved
    assert 1.05 < total(recomputed, "flops", "product") / total(shallow(), "flops", "product") < 1.12


def test_micro_batches_save_less():
    cost = step_cost(SHALLOW, [stage2_batch(IMAGES // 2, 224, "hard", seed) for seed in range(2)])
    # Half of the activations, and the weights of all products in bf16 as before.
    weights = 2 * sum(x.numel() for name, x in _named(SHALLOW) if "layers" in name and x.dim() == 2)
    assert 0.45 < (cost.saved - weights) / (shallow().saved - weights) < 0.55
    assert total(cost, "flops", "product", phase="backward") > 2.9 * total(cost, "flops", "product", phase="forward")


def test_the_most_images_that_fit_do_fit_and_few_more_do_not():
    config, whole = replace(SHALLOW, batch_size=IMAGES), batch()
    found = fit(config, H100._replace(memory=2 * shallow().peak), [whole])
    assert found.micro_batch_size is None
    assert IMAGES < found.images < 4 * IMAGES
    limit = 2 * 0.92 * shallow().peak
    assert step_cost(SHALLOW, [resized(whole, found.images)]).peak == pytest.approx(limit, rel=0.02)


def test_a_batch_too_large_gets_a_micro_batch_that_fits():
    images = 4 * IMAGES  # Of fewer, the activations are small beside the weights.
    large = batch("hard", images)
    card = H100._replace(memory=round(0.9 * step_cost(SHALLOW, [large]).peak))
    found = fit(replace(SHALLOW, batch_size=images), card, [large])
    assert not found.cost.fits(card)
    assert 0 < found.micro_batch_size <= found.images < images
    assert step_cost(SHALLOW, [resized(large, found.micro_batch_size)] * 2).fits(card)


def test_a_resized_batch_costs_what_a_batch_of_that_size_does():
    like = step_cost(SHALLOW, [resized(batch("hard", 2 * IMAGES), IMAGES)])
    assert like.saved == pytest.approx(shallow().saved, rel=0.02)
    assert total(like, "flops", "product") == pytest.approx(total(shallow(), "flops", "product"), rel=0.02)


def test_padded_texts_are_refused():
    whole = batch()
    padded = whole._replace(texts=whole.texts.packed("none"))
    with pytest.raises(ValueError, match="packing must be prefix-tree or padding-free"):
        step_cost(B16, [padded])


def test_nothing_of_the_count_stays():
    b16("hard")
    assert not torch.is_autocast_enabled("cuda")
    assert image.normalize(torch.zeros(1, 3, 2, 2, dtype=torch.uint8)).sum() != 0
    torch.ones(1, requires_grad=True).sum().backward()


def test_the_command_line_knows_every_card():
    assert set(CARDS) == set(get_args(Card))


def test_the_verdict_names_a_micro_batch_where_one_pass_is_too_large():
    run = replace(SHALLOW, batch_size=IMAGES)
    assert "does not fit" in verdict(Fit(shallow(), 10, 8), CARDS["a10"]._replace(memory=1), run)
    assert "16 do not fit one pass; --micro-batch-size 8 does" in verdict(Fit(shallow(), 10, 8), H100, run)
    assert "a larger card is needed" in verdict(Fit(shallow(), 0, None), H100, run)
    assert verdict(Fit(shallow(), 99, None), H100, run).endswith("about 99 in one pass")


def test_the_table_tells_all_counts():
    text = table(b16("hard"), H100)
    for name in ("products, TFLOP", "attention", "elementwise, GB", "casts", "launches", "host waits", "saved", "MFU"):
        assert name in text


def _parameters(config):
    return [parameter for _, parameter in _named(config)]


def _named(config):
    from fgclip_fast.model.network import Network

    with torch.device("meta"):
        return list(Network(config.model).named_parameters())
