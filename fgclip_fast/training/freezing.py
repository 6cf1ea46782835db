"""Hold a part of the model still: its parameters get no gradient, and its tower runs without a graph."""

from torch import nn

from fgclip_fast.config import Freeze

HELD: dict[Freeze, tuple[str, ...]] = {
    "text": ("text_model.", "text_projection.", "text_filip_projection."),
    "vision": ("vision_model.", "visual_projection."),
    "all-but-projections": ("text_model.", "vision_model."),
}
"""Beginnings of the names of the parameters that each choice holds; the logit scales always train."""


def freeze(model: nn.Module, part: Freeze | None) -> None:
    """Switch off the gradients of a part of ``model``; None trains everything.

    Call it before the optimizer and DistributedDataParallel are made, since both take only what has gradients then.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part is None or not name.startswith(HELD[part]))


def holds_towers(model: nn.Module) -> bool:
    """True if all that stands before the projections of ``model``, which DDP may wrap, is held still."""
    towers = HELD["all-but-projections"]
    found = [p for name, p in model.named_parameters() if name.removeprefix("module.").startswith(towers)]
    return bool(found) and not any(p.requires_grad for p in found)
