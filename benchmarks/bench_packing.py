"""A step of the default run, by how its texts are packed: equal losses, then time.

pytest benchmarks/bench_packing.py --benchmark-only -s
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle

import pytest
import torch
from torch import Tensor

from benchmarks.measure import DEVICE, by_turns
from fgclip_fast.config.model import Packing
from fgclip_fast.data.loader import Loader
from fgclip_fast.inputs.batch import Batch
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.presets import TINY
from fgclip_fast.scenes.write import write_scenes
from fgclip_fast.training.objective import objective
from fgclip_fast.training.optim import adamw, update

BATCHES = 4
PACKINGS: tuple[Packing, ...] = ("none", "padding-free", "prefix-tree")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """The first scenes of the embedded data set, in shards."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=BATCHES * TINY.batch_size, val=20)
    return folder


def batches_of(scenes, packing: Packing) -> list[Batch]:
    """The same images and texts whatever the packing."""
    data = replace(TINY.data, train=str(scenes / "train-*.tar"), workers=0)
    size, B = TINY.model.vision.image_size, TINY.batch_size
    loader = Loader(data, image_size=size, batch_size=B, seed=0, tokenizer=Tokenizer(), packing=packing)
    steps = loader.batches()
    return [batch.to(DEVICE) for (batch,) in (next(steps) for _ in range(BATCHES))]


def trainer(batches: list[Batch]) -> Callable[[], Tensor]:
    """Each call is one step; returns its loss."""
    torch.manual_seed(0)
    model, upcoming = FGCLIP(TINY.model).to(DEVICE), cycle(batches)
    optimizer = adamw(model, TINY.optim)

    def step() -> Tensor:
        total = objective(model(next(upcoming)), TINY.loss).total
        total.backward()
        update(model, optimizer, TINY.optim)
        return total.detach()

    return step


def test_packing(benchmark, scenes):
    batches = {packing: batches_of(scenes, packing) for packing in PACKINGS}
    steps = {packing: trainer(own) for packing, own in batches.items()}
    for _ in range(BATCHES):
        losses = [step() for step in steps.values()]
        torch.testing.assert_close(losses[1:], 2 * losses[:1], rtol=1e-4, atol=0)
    ours = steps.pop("prefix-tree")
    ratios = by_turns(benchmark, ours, steps, rounds=10 * BATCHES)  # agreement has warmed them up
    if benchmark.enabled:
        tokens = {
            packing: sum(batch.texts.processed_tokens for batch in own) / BATCHES for packing, own in batches.items()
        }
        benchmark.extra_info.update(ratios=ratios, tokens=tokens, device=DEVICE)
        faster = ", ".join(f"{ratio:.2f} x {packing}" for packing, ratio in ratios.items())
        counted = ", ".join(f"{count:.0f} {packing}" for packing, count in tokens.items())
        print(f"\ndefault run on {DEVICE}: {1e3 * benchmark.stats['median']:.0f} ms a step; {faster}; tokens {counted}")
        assert ratios["none"] > 1
