"""The text tower over packed texts gives the features and gradients of padded ones, in each packing."""

import pytest
import torch
from torch import nn

from fgclip_fast.config.model import Model, Text
from fgclip_fast.inputs.texts import join
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.model.text import TextTower
from fgclip_fast.ops.tree import LONG_LENGTH

TOKENIZER = Tokenizer()
WORDS = ["red", "blue", "mug", "dog", "on", "the", "table"]


def random_texts(n, longest, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(0, longest + 1, (n,), generator=generator).tolist()
    return [" ".join(WORDS[i] for i in torch.randint(0, 7, (size,), generator=generator)) for size in sizes]


CASES = {
    "random": (random_texts(40, 12), random_texts(4, 60)),
    "duplicates": (["a red mug"] * 5 + ["a mug"], ["a red mug on a table"] * 3),
    "difference in the first token": ([f"{word} mug on the table" for word in WORDS], []),
    "difference in the last token": ([f"on the table the {word}" for word in WORDS], []),
    "one a prefix of another": (["a", "a red", "a red mug", "a red mug on"], ["a", "a red"]),
    "empty strings": (["", "", "a mug"], [""]),
    "too long": (["red mug " * 60, "red mug " * 61], ["blue dog " * 150]),
    "only short": (random_texts(10, 12), []),
    "only long": ([], random_texts(3, 100)),
    "one": (["a red mug"], []),
    "none": ([], []),
}


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    tower = TextTower(Model(text=Text(width=32, layers=3, heads=2, mlp=64)))
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)  # so that attention is far from even
    return tower


def features_and_gradients(tower, texts):
    features = tower(texts)
    tower.zero_grad()
    generator = torch.Generator().manual_seed(1)
    sum((x * torch.randn(x.shape, generator=generator)).sum() for x in features).backward()
    return {"short": features[0], "long": features[1]} | {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in tower.named_parameters()
    }


@pytest.mark.parametrize("name", CASES)
def test_packing_changes_no_feature_and_no_gradient(tower, name):
    short, long = CASES[name]
    texts = join(TOKENIZER(short), TOKENIZER(long, LONG_LENGTH))
    padded = features_and_gradients(tower, texts)
    for packing in ("padding-free", "prefix-tree"):
        packed = features_and_gradients(tower, texts.packed(packing))
        for part, theirs in padded.items():
            assert packed[part].shape == theirs.shape, part
            if theirs.numel():
                floor = 1e-4 if part.endswith("k_proj.bias") else 1e-6  # zero in theory
                bound = 1e-5 * theirs.abs().max() + floor
                assert (packed[part] - theirs).abs().max() <= bound, (part, packing)
