"""Our model computes what the released FG-CLIP does on a tiny random model (tests/golden/README.md)."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from fgclip_fast.config import Model, Text, Vision
from fgclip_fast.inputs.tokenizer import LONG_LENGTH, Tokenizer
from fgclip_fast.model.fgclip import FGCLIP

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


@pytest.fixture(scope="module")
def batch(golden, story):
    """The golden batch as ours: the padding boxes, texts and images of the released layout are left out."""
    real = [4 * image + n for image, count in enumerate(story["box_nums"]) for n in range(count)]
    texts = story["texts"]
    short = Tokenizer()([*texts["short"], *(texts["box"][i] for i in real), *texts["hard"]])
    long = Tokenizer()(texts["long"], LONG_LENGTH)
    hard = [4 * image + n for image, count in enumerate(story["hard_nums"]) for n in range(count)]
    boxes, hard_boxes = golden["inputs/boxes"].view(-1, 4), golden["inputs/hard_boxes"].view(-1, 4)
    find = [next(r for r, i in enumerate(real) if torch.equal(boxes[i], hard_boxes[h])) for h in hard]
    return SimpleNamespace(
        image=golden["inputs/image"],
        token=torch.cat([short.token, long.token]),
        offsets=torch.cat([short.offsets, long.offsets[1:] + len(short.token)]),
        boxes=boxes[real],
        image_index=torch.tensor([i // 4 for i in real]),
        hard_region=torch.tensor(find),
        hard_offsets=torch.arange(0, 67, 11),
        text_ids=torch.arange(len(short.offsets) + len(long.offsets) - 2),
        real=real,
    )


def test_features(model, golden, batch):
    embeddings = model(batch)
    for name, ours in (("image", embeddings.image), ("short", embeddings.short), ("long", embeddings.long)):
        assert_equal(ours, golden[f"outputs/{name}"], name)
    assert_equal(embeddings.regions, golden["outputs/regions"][batch.real], "regions")
    assert_equal(model.encode_patches(batch.image), golden["outputs/dense"], "dense")


def assert_equal(ours, theirs, name):
    error, largest = (ours - theirs).abs().max(), theirs.abs().max()
    assert error <= 1e-5 * largest, f"{name}: off by {error:.2e}, largest {largest:.2e}"
