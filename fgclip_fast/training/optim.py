"""AdamW: parameter groups, learning-rate schedule, and the update of a step."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from fgclip_fast.config import Optim

SCALES = ("logit_scale", "logit_scale_finegraind", "logit_scale_hardneg")


def adamw(model: nn.Module, config: Optim) -> torch.optim.AdamW:
    """Build AdamW over the trained parameters of ``model``, in groups by weight decay and learning rate.

    As in the released trainer, LayerNorm parameters and biases do not decay; all others do, and so do the logit scales
    unless ``config.decay_scales`` is off. ``config.text_lr`` is for the text tower without its projections, and
    ``config.layer_decay`` lowers the rate of each block below another (arXiv 2106.08254). With ``config.l2_start`` each
    group also keeps its ``start``: the weights as they are now.
    """
    no_decay = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    groups: dict[tuple[float, float], list[tuple[str, Tensor]]] = {}
    depths = _depths([name for name, _ in model.named_parameters()])
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        plain = id(parameter) in no_decay or "bias" in name or (name in SCALES and not config.decay_scales)
        lr = config.text_lr if config.text_lr is not None and name.startswith("text_model.") else config.lr
        lr *= config.layer_decay ** depths[name]
        groups.setdefault((lr, 0.0 if plain else config.weight_decay), []).append((name, parameter))
    sets = [{"params": p, "lr": lr, "peak": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]
    optimizer = torch.optim.AdamW(sets, betas=config.betas, eps=config.eps, fused=True)
    for group in optimizer.param_groups if config.l2_start > 0 else ():
        group["start"] = [p.detach().clone() for p in group["params"]]
    return optimizer


def _depths(names: Sequence[str]) -> dict[str, int]:
    """Number of blocks above each parameter, its own counted: 0 for projections and last norms."""
    found = {name: re.match(r"(\w+)\.(encoder\.layers\.(\d+)|embeddings|pre_layrnorm)\.", name) for name in names}
    blocks = Counter(tower for tower, _ in {(m[1], m[3]) for m in found.values() if m and m[3]})
    return {n: blocks[m[1]] - int(m[3]) if m and m[3] else blocks[m[1]] + 1 if m else 0 for n, m in found.items()}


def set_lr(optimizer: torch.optim.Optimizer, config: Optim, step: int, steps: int) -> float:
    """Set the learning rate of each group for ``step`` (from 0) of ``steps``; return that of ``config.lr``.

    It rises linearly for ``config.warmup`` steps, or that share of ``steps``, then falls to zero as half a cosine. It
    depends on the step alone, so a checkpoint need not hold it.
    """
    warmup = round(config.warmup * steps if config.warmup < 1 else config.warmup)
    if step < warmup:
        factor = (step + 1) / warmup
    else:
        done = (step - warmup) / max(1, steps - warmup)
        factor = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return config.lr * factor


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
    if config.l2_start > 0:
        _pull_to_start(optimizer, config.l2_start * (1.0 - skipped))
    optimizer.grad_scale, optimizer.found_inf = None, skipped  # type: ignore[attr-defined]  # read by the fused step
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if config.max_scale is not None:
        for scale in (p for name, p in model.named_parameters() if name.rsplit(".", 1)[-1] in SCALES):
            scale.data.clamp_(max=math.log(config.max_scale))
    return norm, skipped


@torch.no_grad()
def _pull_to_start(optimizer: torch.optim.Optimizer, strength: Tensor) -> None:
    """Move each weight towards its start, as decoupled weight decay moves it towards zero (arXiv 1802.01483)."""
    for group in optimizer.param_groups:
        for weight, start in zip(group["params"], group["start"], strict=True):
            weight.lerp_(start, (group["lr"] * strength).to(weight.dtype))


def state_by_name(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """Moments of each parameter, and its start where there is one, by the parameter's name."""
    found: dict[str, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        for number, (name, parameter) in enumerate(zip(group["param_names"], group["params"], strict=True)):
            start = {"start": group["start"][number]} if "start" in group else {}
            found[name] = {**optimizer.state[parameter], **start}
    return found


@torch.no_grad()
def load_state(optimizer: torch.optim.Optimizer, saved: Mapping[str, Mapping[str, Any]]) -> None:
    """Restore what :func:`state_by_name` gave; rates, decays and groups stay those of ``optimizer``.

    A parameter that was not trained before begins with fresh moments.

    Raises:
        ValueError: ``optim.l2_start`` is set, and the state holds no start.
    """
    for group in optimizer.param_groups:
        for number, (name, parameter) in enumerate(zip(group["param_names"], group["params"], strict=True)):
            state = dict(saved.get(name, {}))
            start = state.pop("start", None)
            if "start" in group and start is None:
                raise ValueError(f"resume: optim.l2_start must be set from the start; no start of {name} was saved")
            if "start" in group:
                group["start"][number].copy_(start)
            if state:
                optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in state.items()}


def named(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give a state dict of torch's, whose parameters are numbers, the names of ``optimizer``'s parameters.

    The first checkpoints held such a dict; parameters have kept their order in the groups.

    Raises:
        ValueError: the groups are not those of ``optimizer``.
    """
    sizes = [len(group["params"]) for group in saved["param_groups"]]
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    shapes = [p.shape for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    found = {name: saved["state"].get(number, {}) for name, number in zip(names, numbers, strict=False)}
    moments = [state.get("exp_avg") for state in found.values()]
    fit = all(m is None or m.shape == shape for m, shape in zip(moments, shapes, strict=False))
    if sizes != [len(group["params"]) for group in optimizer.param_groups] or not fit:
        raise ValueError(
            "resume: the checkpoint is of an early version, whose groups of weights were others; go on from its "
            "weights by --init"
        )
    return found
