"""One training step of a network with random weights: towers, losses, backward pass, update."""

from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.sizes import Sizes
from fgclip_fast.config import Loss, Optim
from fgclip_fast.config.model import Model
from fgclip_fast.inputs.batch import Batch
from fgclip_fast.model.network import Network
from fgclip_fast.training import grad_cache, optim
from fgclip_fast.training.objective import Losses, objective


class Step:
    """A model and its optimizer; calling it takes one step on ``batch``, under bf16 autocast."""

    def __init__(self, sizes: Sizes, model: Model, batch: Batch) -> None:
        torch.manual_seed(0)
        self.network, self.batch, self.device = Network(model).to(sizes.device).train(), batch, sizes.device
        self.optimizer = optim.adamw(self.network, Optim())

    def __call__(self) -> tuple[Losses, Tensor, Tensor]:
        """Return losses, gradient norm, and whether the update was skipped."""
        embed = grad_cache.embedder(self.network, self.device.type, True)
        losses = grad_cache.backward(self.network, embed, [self.batch], partial(objective, weights=Loss()))
        return losses, *optim.update(self.network, self.optimizer, Optim())


def flop_of(model: Model, batch: Batch) -> float:
    """Operations of the model in a step: three times its forward pass, whatever is computed again.

    Counted are the products of both towers and the vision tower's attention. The text's last block multiplies the rows
    of the texts alone, the vision's only the queries of the class tokens. The tree's attention is below one percent.
    """
    assert batch.texts.tree is not None
    vision, text, B = model.vision, model.text, len(batch.image)
    patches = vision.grid**2
    rows, tokens, texts = B * (patches + 1), len(batch.texts.tree.token), len(batch.texts.tree.pooled)
    flop = 2 * vision.width * B * patches * (3 * vision.patch_size**2 - vision.width)
    flop -= (tokens - texts) * (2 * text.width**2 + 4 * text.width * text.mlp)
    for tower, count in ((vision, rows), (text, tokens)):
        flop += tower.layers * count * (8 * tower.width**2 + 4 * tower.width * tower.mlp)
    return 3.0 * (flop + 4 * vision.layers * rows * (patches + 1) * vision.width)
