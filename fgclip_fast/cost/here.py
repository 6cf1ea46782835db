"""The largest micro-batch that fits the device of a run, by count."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from fgclip_fast.config import Config
from fgclip_fast.cost.cards import Card
from fgclip_fast.cost.fit import fit
from fgclip_fast.inputs.batch import Batch


def micro_batch_size(config: Config, batches: Sequence[Batch], device: torch.device) -> int | None:
    """Count a step of the run and return the images of a pass that fills the free memory of ``device``.

    Args:
        config: the run.
        batches: the batch of one step, as one micro-batch.
        device: the model's device.

    Returns:
        The largest even share of the batch that fits; None where the whole batch does.

    Raises:
        ValueError: Texts are padded, so nothing can be counted, or not even one image fits.
    """
    if config.model.packing == "none":
        raise ValueError("micro_batch_size auto needs --model.packing prefix-tree or padding-free, got none")
    free = free_memory(device)
    found = fit(config, Card(str(device), 1.0, 1.0, 1.0, free), batches)
    if found.images < config.batch_size and found.micro_batch_size is None:
        raise ValueError(
            f"micro_batch_size auto: by count a step of one image does not fit the {free / 1e9:.1f} GB that are free; "
            "pass --model.recompute blocks, or take a smaller model"
        )
    return found.micro_batch_size


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free: of a GPU, or of the system."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")  # Linux; unlike sysconf it counts what caches give back
    if table.exists():
        rows = dict(line.split(":") for line in table.read_text().splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
