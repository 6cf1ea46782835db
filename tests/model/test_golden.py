"""Our model computes what the released FG-CLIP does on a tiny random model (tests/golden/README.md)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fgclip_fast.config import Loss
from fgclip_fast.config.model import Model, Text, Vision
from fgclip_fast.inputs.batch import Batch
from fgclip_fast.inputs.texts import join
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops.tree import LONG_LENGTH
from fgclip_fast.training.objective import objective

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIG = Model(
    vision=Vision(image_size=64, patch_size=16, width=48, layers=3, heads=4, mlp=96),
    text=Text(width=32, layers=3, heads=2, mlp=64),
    projection=24,
)


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "golden.safetensors")


@pytest.fixture(scope="module")
def story():
    return json.loads((GOLDEN / "golden.json").read_text())


@pytest.fixture(scope="module")
def model(golden):
    state = {name.removeprefix("weights/"): value for name, value in golden.items() if name.startswith("weights/")}
    token = "text_model.embeddings.token_embedding.weight"
    state[token] = torch.zeros(49408, 32).index_copy(0, golden["weights_token_rows"], state[token])
    model = FGCLIP(CONFIG)
    model.load_state_dict(state)
    return model


@pytest.fixture(scope="module", params=["none", "padding-free", "prefix-tree"])
def batch(golden, story, request):
    """The golden batch as ours: the padding boxes, texts and images of the released layout are left out."""
    real, hard = (filled(story[counts]) for counts in ("box_nums", "hard_nums"))
    boxes, hard_boxes = golden["inputs/boxes"].view(-1, 4), golden["inputs/hard_boxes"].view(-1, 4)
    owner = [next(r for r, i in enumerate(real) if torch.equal(boxes[i], hard_boxes[h])) for h in hard]
    texts = texts_of(story["texts"], real)
    return Batch(
        image=golden["inputs/image"],
        texts=texts.packed(request.param),
        boxes=boxes[real],
        image_index=torch.tensor([i // 4 for i in real]),
        hard_region=torch.tensor(owner),
        hard_offsets=torch.arange(0, 11 * len(hard) + 1, 11),
        text_ids=torch.arange(len(texts.offsets) - 1),
    )


def filled(counts):
    """Of the released layout's four slots an image, those that hold something."""
    return [4 * image + n for image, count in enumerate(counts) for n in range(count)]


def texts_of(texts, real):
    short = Tokenizer()([*texts["short"], *(texts["box"][i] for i in real), *texts["hard"]])
    return join(short, Tokenizer()(texts["long"], LONG_LENGTH))


def test_features(model, golden, story, batch):
    embeddings = model(batch)
    for name in ("image", "short", "long"):
        assert_equal(getattr(embeddings, name), golden[f"outputs/{name}"], name)
    assert_equal(embeddings.regions, golden["outputs/regions"][filled(story["box_nums"])], "regions")
    assert_equal(model.encode_patches(batch.image), golden["outputs/dense"], "dense")


def test_losses(model, golden, batch):
    losses = objective(model(batch), Loss())
    assert_equal(losses.short + losses.long, golden["outputs/loss_global"], "global")
    assert_equal(losses.region, golden["outputs/loss_region"], "region")
    assert_equal(losses.hard_negative, golden["outputs/loss_hard_negative"], "hard negative")
    assert_equal(losses.total, golden["outputs/loss"], "total")


def test_gradients(model, golden, batch):
    assert_gradients(model, golden, batch)


def test_gradients_of_recomputed_blocks(model, golden, batch, monkeypatch):
    for tower in (model.text_model, model.vision_model):
        monkeypatch.setattr(tower.encoder, "recompute", True)
    assert_gradients(model, golden, batch)


def assert_gradients(model, golden, batch):
    model.zero_grad()
    objective(model(batch), Loss()).total.backward()
    compared = 0
    for name, parameter in model.named_parameters():
        ours, theirs = parameter.grad, golden[f"grads/{name}"]
        if name.endswith("token_embedding.weight"):
            ours = ours[golden["weights_token_rows"]]
        if name.endswith("k_proj.bias"):  # zero in theory
            assert (ours - theirs).abs().max() < 1e-6, name
        else:
            assert_equal(ours, theirs, name)
        compared += 1
    assert compared == sum(name.startswith("grads/") for name in golden)


def assert_equal(ours, theirs, name):
    error, largest = (ours - theirs).abs().max(), theirs.abs().max()
    assert error <= 1e-5 * largest, f"{name}: off by {error:.2e}, largest {largest:.2e}"
