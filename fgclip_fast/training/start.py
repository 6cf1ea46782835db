"""The model that a run starts from, before its first step."""

import torch

from fgclip_fast.config import Config
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP


def model(config: Config) -> FGCLIP:
    """Build the model of a config before its first step, on the CPU: the weights of ``init``, or random ones.

    Random weights come from torch's global generator, which the caller seeds.

    Raises:
        FileNotFoundError: the weights of ``init`` do not exist.
        ValueError: the weights of ``init`` do not fit.
    """
    if config.init is None:
        return FGCLIP(config.model)
    found = pretrained.load(config.init, like=config.model)
    if config.keep_scales:
        return found
    # As in the released trainer, both fine scales start from the global one.
    with torch.no_grad():
        for scale in (found.logit_scale_finegraind, found.logit_scale_hardneg):
            scale.copy_(found.logit_scale)
    return found


def again(config: Config) -> FGCLIP:
    """Build the model that a run has started from once more, in evaluation mode: random weights by the run's seed.

    Raises:
        FileNotFoundError, ValueError: as of :func:`model`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return model(config).eval()
