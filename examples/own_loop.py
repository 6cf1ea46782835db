"""A training loop of your own: batches of records, the model, FG-CLIP's objective, an optimizer."""

import tempfile
from pathlib import Path

import torch

from fgclip_fast.config import Data, Loss
from fgclip_fast.data.loader import Loader
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.presets import PRESETS
from fgclip_fast.scenes.write import write_scenes
from fgclip_fast.training.objective import objective


def main(shards: str, steps: int = 10) -> None:
    """Train a small model from random weights.

    Args:
        shards: path, glob or {000..999} range of .tar files.
        steps: optimizer steps.
    """
    torch.manual_seed(0)
    model = FGCLIP(PRESETS["tiny"].model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = Loader(
        Data(train=shards), image_size=96, batch_size=8, seed=0, tokenizer=model.tokenizer, packing="prefix-tree"
    )
    for step, (batch,) in zip(range(steps), loader.batches(), strict=False):
        losses = objective(model(batch), Loss())
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(step, *(f"{name} {value.item():.3f}" for name, value in losses._asdict().items()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_scenes(Path(folder), train=64, val=0)  # rendered scenes; name your own shards instead
        main(f"{folder}/train-*.tar")
