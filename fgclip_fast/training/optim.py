"""AdamW: parameter groups, learning-rate schedule, and the update of a step."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from fgclip_fast.config import Optim

SCALES = ("logit_scale", "logit_scale_finegraind", "logit_scale_hardneg")


def adamw(model: nn.Module, config: Optim) -> torch.optim.AdamW:
    """Build AdamW over all parameters of ``model``, in groups by weight decay and learning rate.

    As in the released trainer, LayerNorm parameters and biases do not decay; all others do, and so do the logit scales
    unless ``config.decay_scales`` is off. ``config.text_lr`` is for the text tower without its projections.
    """
    no_decay = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        plain = id(parameter) in no_decay or "bias" in name or (name in SCALES and not config.decay_scales)
        lr = config.text_lr if config.text_lr is not None and name.startswith("text_model.") else config.lr
        groups.setdefault((lr, 0.0 if plain else config.weight_decay), []).append(parameter)
    sets = [{"params": p, "lr": lr, "peak": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]
    return torch.optim.AdamW(sets, betas=config.betas, eps=config.eps, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, config: Optim, step: int, steps: int) -> float:
    """Set the learning rate of each group for ``step`` (from 0) of ``steps``; return that of the first group.

    It rises linearly for ``config.warmup`` steps, then falls to zero as half a cosine. It depends on the step alone, so
    a checkpoint need not hold it.
    """
    if step < config.warmup:
        factor = (step + 1) / config.warmup
    else:
        done = (step - config.warmup) / max(1, steps - config.warmup)
        factor = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return optimizer.param_groups[0]["lr"]


def update(model: nn.Module, optimizer: torch.optim.Optimizer, config: Optim) -> tuple[Tensor, Tensor]:
    """Take one optimizer step with the accumulated gradients, and clear them.

    A step whose gradient is not finite changes nothing. The device decides that, so the host does not wait; every
    process decides the same, since all have the same averaged gradient.

    Returns:
        Gradient norm before clipping and whether the step was skipped (0 or 1), both Tensor[], fp32.
    """
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    skipped = (~torch.isfinite(norm)).float()
    if config.clip > 0:
        clip_grads_with_norm_(parameters, config.clip, norm)
    optimizer.grad_scale, optimizer.found_inf = None, skipped  # type: ignore[attr-defined]  # read by the fused step
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if config.max_scale is not None:
        for scale in (p for name, p in model.named_parameters() if name.rsplit(".", 1)[-1] in SCALES):
            scale.data.clamp_(max=math.log(config.max_scale))
    return norm, skipped
