"""The model that a run starts from, before its first step."""

import logging
from dataclasses import asdict
from typing import Any

import torch

from fgclip_fast.config import Config
from fgclip_fast.config.model import Model
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP

log = logging.getLogger("fgclip_fast")


def model(config: Config) -> FGCLIP:
    """Build the model of a config before its first step, on the CPU: the weights of ``init``, or random ones.

    Random weights come from torch's global generator, which the caller seeds.

    Raises:
        FileNotFoundError: the weights of ``init`` do not exist.
        ValueError: the weights of ``init`` do not fit.
    """
    if config.init is None:
        return FGCLIP(config.model)
    found = pretrained.load(config.init, like=config.model, trust_file=config.trust_file)
    tell_geometry("init", config.model, found.config)
    if config.keep_scales:
        return found
    # As in the released trainer, both fine scales start from the global one.
    with torch.no_grad():
        for scale in (found.logit_scale_finegraind, found.logit_scale_hardneg):
            scale.copy_(found.logit_scale)
    return found


def tell_geometry(where: str, wanted: Model, found: Model) -> None:
    """Warn of each field of geometry that the config sets and the weights of ``where`` contradict."""
    ask, has, usual = (_geometry(part) for part in (wanted, found, Model()))
    for name, value in ask.items():
        if value not in (has[name], usual[name]):
            log.warning("%s: model.%s is %s in the weights, which rule; %s is ignored", where, name, has[name], value)


def _geometry(part: Model) -> dict[str, Any]:
    towers = [
        (f"{tower}.{name}", v) for tower in ("vision", "text") for name, v in asdict(getattr(part, tower)).items()
    ]
    alone = ("projection", "activation", "layer_norm_eps")
    return {**dict(towers), **{name: getattr(part, name) for name in alone}}


def again(config: Config) -> FGCLIP:
    """Build the model that a run has started from once more, in evaluation mode: random weights by the run's seed.

    Raises:
        FileNotFoundError, ValueError: as of :func:`model`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return model(config).eval()
