"""The settings of a run: frozen dataclasses with units, defaults and rules."""

from fgclip_fast.config.model import Attention, Model, Packing, Precision, Recompute, Text, Vision
from fgclip_fast.config.training import Card, Config, Data, Decoder, Freeze, Lora, Loss, Optim

__all__ = [
    "Attention",
    "Card",
    "Config",
    "Data",
    "Decoder",
    "Freeze",
    "Lora",
    "Loss",
    "Model",
    "Optim",
    "Packing",
    "Precision",
    "Recompute",
    "Text",
    "Vision",
]
