"""Low-rank adapters (LoRA, arXiv 2106.09685): peft makes and holds them, the blocks add them to their weights.

A layer of weight W multiplies by ``W + alpha / rank * B @ A``; W is held still, A [rank, in] starts at random and
B [out, rank] at zero, so that training starts from the outputs of W. A checkpoint's ``model/`` holds the sums, as a
plain model; ``lora.safetensors`` beside it holds W, A and B, which the sums no longer tell, to go on from.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from fgclip_fast.config import Lora
from fgclip_fast.model.block import full_weight
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.weights import write_tensors
from fgclip_fast.training.optim import SCALES

FILE = "lora.safetensors"
_LAYERS = r"encoder\.layers\.\d+\.(self_attn\.[qkv]_proj|self_attn\.out_proj|mlp\.fc1|mlp\.fc2)"
_TOWERS = {"text": "text_model", "vision": "vision_model", "both": "(text|vision)_model"}


def check(config: Lora) -> None:
    """Check that adapters can be made, before anything else of a run starts.

    Raises:
        ValueError: ``config`` wants adapters, and peft is not installed.
    """
    if config.rank:
        try:
            import peft  # noqa: F401
        except ImportError:
            raise ValueError("lora.rank needs peft: pip install 'fgclip_fast[lora]'") from None


def add(model: FGCLIP, config: Lora, saved: Path | None = None) -> None:
    """Put adapters around the blocks' linear layers; only these and the logit scales train from now on.

    Call it before the optimizer, the average and DistributedDataParallel are made.

    Args:
        model: changed in place; from torch's global generator, A is drawn as peft does. Untouched for rank 0.
        config: rank, factor and towers.
        saved: checkpoint to go on from; W, A and B become those of it.

    Raises:
        ValueError: ``saved`` was trained with other adapters, or with none.
    """
    _check_same(config, saved)
    if not config.rank:
        return
    from peft import LoraConfig, inject_adapter_in_model  # an extra; and it imports transformers

    layers = rf"{_TOWERS[config.towers]}\.{_LAYERS}"
    alpha = config.rank if config.alpha is None else config.alpha
    inject_adapter_in_model(LoraConfig(r=config.rank, lora_alpha=alpha, target_modules=layers), model)  # type: ignore[arg-type]
    for scale in SCALES:
        model.get_parameter(scale).requires_grad_()
    if saved is not None:
        with torch.no_grad(), safe_open(saved / FILE, "pt") as file:
            for name in file.keys():  # noqa: SIM118  # the file is not a mapping
                model.get_parameter(name).copy_(file.get_tensor(name))


def parts(model: FGCLIP) -> dict[str, Tensor]:
    """W, A and B of each layer that has adapters, by name."""
    named = [(f"{name}.{part}", p) for name, layer in adapted(model).items() for part, p in layer.named_parameters()]
    return {name: p for name, p in named if not name.endswith(".bias")}


def write(folder: Path, tensors: Mapping[str, Tensor], config: Lora) -> None:
    """Write what :func:`parts` gave into the folder of a checkpoint; nothing for a model without adapters."""
    if config.rank:
        write_tensors(folder / FILE, tensors, {"lora": json.dumps(asdict(config))})


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the plain model that computes what ``model`` computes with its adapters, bit for bit."""
    sums = {f"{name}.base_layer.weight": full_weight(layer) for name, layer in adapted(model).items()}
    state = {name: sums.get(name, value) for name, value in model.state_dict().items() if ".lora_" not in name}
    return {name.replace(".base_layer.", "."): value for name, value in state.items()}


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add the adapters to the weights, and take them away; a model without adapters is left alone."""
    for name, layer in adapted(model).items():
        plain = layer.get_base_layer()
        plain.weight.copy_(full_weight(layer))
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, plain)


def adapted(model: nn.Module) -> dict[str, Any]:
    """The layers that adapters stand around, by name."""
    return {name: m for name, m in model.named_modules() if hasattr(m, "get_delta_weight")}


def _check_same(config: Lora, saved: Path | None) -> None:
    if saved is None:
        return
    was = Lora()
    if (saved / FILE).is_file():
        with safe_open(saved / FILE, "pt") as file:
            was = Lora(**json.loads(file.metadata()["lora"]))
    for name, value in asdict(config).items():
        if (before := getattr(was, name)) != value and (config.rank or was.rank):
            hint = f"go on from its weights, with new adapters, by --init {saved}"
            raise ValueError(f"resume: lora.{name} was {before} and is {value} now; {hint}")
