"""Weights between two models of one geometry."""

import torch

from fgclip_fast.model.fgclip import FGCLIP


@torch.no_grad()
def interpolate(model: FGCLIP, init: FGCLIP, share: float) -> None:
    """Move the weights of ``model`` towards ``init``; ``share`` of its own stays.

    Between a fine-tuned model and its start lie models that know both (WiSE-FT, arXiv 2109.01903).

    Raises:
        ValueError: the two have another geometry.
    """
    ours, begun = model.state_dict(), init.state_dict()
    if {name: x.shape for name, x in ours.items()} != {name: x.shape for name, x in begun.items()}:
        raise ValueError(f"interpolate must name weights of the model's geometry, {model.config}, got {init.config}")
    for name, value in ours.items():
        value.copy_(torch.lerp(begun[name], value, share))
