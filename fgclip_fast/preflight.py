"""Checks that a command makes before it starts, so that a mistake costs seconds and not hours."""

from pathlib import Path
from time import perf_counter
from typing import Literal

import torch

from fgclip_fast.data.shards import expand
from fgclip_fast.ops.linear import product


def device(wanted: str) -> torch.device:
    """The device that a word stands for; ``auto`` is the first GPU, else the CPU.

    Args:
        wanted: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: torch does not see that GPU.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    chosen = torch.device(("cuda" if gpus else "cpu") if wanted == "auto" else wanted)
    if chosen.type == "cuda" and (chosen.index or 0) >= gpus:
        raise ValueError(f"device must be one that torch sees, got {wanted} with {gpus} GPUs; see `fgclip info`")
    return chosen


def precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> Literal["fp32", "bf16"]:
    """The precision of products that a word stands for.

    Args:
        wanted: ``fp32``, ``bf16``, or ``auto``: bf16 on a GPU or a CPU with tiles for it (tensor cores, AMX), and on a
            CPU with other instructions for it where a measured product is faster so; else fp32.
        device: of the run.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    has = torch.cpu.get_capabilities()
    if has.get("amx_bf16") or not has.get("avx512_bf16"):
        return "bf16" if has.get("amx_bf16") else "fp32"
    return "bf16" if _product_seconds(torch.bfloat16) < _product_seconds(torch.float32) else "fp32"


def _product_seconds(dtype: torch.dtype) -> float:
    """Least seconds of the product in an MLP of ViT-B/16, 394 tokens, and of rounding its weights."""
    tokens, weight = torch.ones(394, 768, dtype=dtype), torch.ones(3072, 768)
    times = []
    for _ in range(5):
        start = perf_counter()
        product(tokens, weight.to(dtype))
        times.append(perf_counter() - start)
    return min(times)


def check_output(name: str, path: Path) -> None:
    """Check that a file can be written.

    Args:
        name: of the argument, for the message.
        path: the file.

    Raises:
        ValueError: ``path`` is a folder, or its own folder does not exist.
    """
    if path.is_dir():
        raise ValueError(f"{name} must be a file, got the folder {path}")
    if not path.parent.is_dir():
        raise ValueError(f"{name} must lie in an existing folder, got {path}")


def list_shards(name: str, pattern: str) -> list[Path]:
    """List the shards that a pattern names.

    Args:
        name: of the argument, for the message.
        pattern: path, glob or range of .tar files, or their folder; several are joined by ``::``.

    Raises:
        ValueError: a part is empty. It would stand for any shards in the current directory.
        FileNotFoundError: a part names no shard.
    """
    if not all(pattern.split("::")):
        hint = f"pass --{name} 'folder/{name.rpartition('.')[2]}-*.tar', or scenes for the embedded set"
        raise ValueError(f"{name} must name shards, got {pattern!r}; {hint}")
    try:
        return expand(pattern)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name}: {error}") from None
