"""FG-CLIP's loss in a loop of your own: a batch of records, the model, the objective, an optimizer."""

import torch

from fgclip_fast.config import Data, Loss
from fgclip_fast.data.loader import Loader
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.presets import PRESETS
from fgclip_fast.scenes.locate import locate
from fgclip_fast.training.objective import objective


def main() -> None:
    """Ten steps on the embedded data set."""
    torch.manual_seed(0)
    model = FGCLIP(PRESETS["tiny"].model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    data = locate(Data(train="scenes"))  # or your own shards: Data(train="mine/train-*.tar")
    loader = Loader(data, image_size=96, batch_size=8, seed=0, tokenizer=model.tokenizer)
    for step, (batch,) in zip(range(10), loader.batches(), strict=False):
        losses = objective(model(batch), Loss())
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(step, *(f"{name} {value.item():.3f}" for name, value in losses._asdict().items()))


if __name__ == "__main__":  # the loader's workers import this file
    main()
