"""Compute which tiles of the contrastive loss's kernels fit a GPU, and autotune among these.

This is apart from the kernels, since timing needs a device; compiling ahead of time or interpreting does not.
"""

import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from fgclip_fast.files.home_cache import home_cache
from fgclip_fast.files.whole_file import write_json
from fgclip_fast.kernels.contrastive_side import Side


class Target(NamedTuple):
    """The properties of a GPU that tiles are chosen by."""

    arch: int
    processors: int
    shared: int
    """Bytes of shared memory that one program may have."""


TARGETS = {
    80: Target(80, 108, 163 * 2**10),  # A100
    89: Target(89, 142, 99 * 2**10),  # L40S
    90: Target(90, 132, 227 * 2**10),  # H100, H200
    100: Target(100, 148, 227 * 2**10),  # B200
    120: Target(120, 170, 99 * 2**10),  # RTX 5090
}


class Tile(NamedTuple):
    """A launch: tiles of BLOCK_M x BLOCK_N logits, and how a program reads their operands."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int
    tma: bool = False
    """Read by TMA descriptors; few programs then walk over all tiles. Else pointers, and a program for each tile."""
    warp_specialize: bool = False
    """Let some warps load and multiply while others work on the tile before. Triton 3.8 offers it on sm_100 only."""

    def launch(self) -> dict[str, int]:
        """Arguments of the launch."""
        blocks = {"BLOCK_M": self.block_m, "BLOCK_N": self.block_n, "BLOCK_K": self.block_k}
        flags = {"TMA": self.tma, "WARP_SPECIALIZE": self.warp_specialize}
        return {**blocks, **flags, "num_warps": self.num_warps, "num_stages": self.num_stages}

    def operand(self, rows: Tensor, block: int) -> Tensor | TensorDescriptor:
        """Rows as the kernel reads them, ``block`` at a time."""
        return TensorDescriptor.from_tensor(rows, [block, self.block_k]) if self.tma else rows

    def result(self, weights: Tensor) -> Tensor | TensorDescriptor:
        """A matrix as the kernel writes it."""
        return TensorDescriptor.from_tensor(weights, [self.block_m, self.block_n]) if self.tma else weights


# The first that fits is taken where none is timed. No tile spills: tests/kernels compiles every one of them.
_HALF = {
    80: (Tile(128, 128, 32, 8, 3), Tile(128, 64, 64, 4, 3), Tile(64, 64, 64, 4, 3)),
    90: (
        Tile(256, 128, 64, 8, 3, tma=True),
        Tile(128, 256, 64, 8, 3, tma=True),
        Tile(128, 128, 64, 8, 3, tma=True),
        Tile(64, 64, 64, 4, 3, tma=True),
    ),
    100: (
        Tile(128, 256, 64, 8, 3, tma=True, warp_specialize=True),
        Tile(128, 128, 64, 8, 3, tma=True, warp_specialize=True),
        Tile(128, 64, 64, 8, 3, tma=True),
        Tile(64, 64, 64, 4, 3, tma=True),
    ),
}
_HALF_GRADIENT = {
    80: (Tile(128, 128, 32, 8, 3), Tile(64, 64, 32, 4, 3)),
    90: (Tile(128, 128, 64, 8, 3, tma=True), Tile(64, 64, 64, 4, 3, tma=True)),
    100: (Tile(128, 64, 64, 8, 3, tma=True, warp_specialize=True), Tile(64, 64, 64, 4, 3, tma=True)),
}
# Rows of a width that is not a multiple of 8 values: TMA cannot read them, and addresses of more rows would spill.
_UNALIGNED = (Tile(64, 64, 32, 4, 3),)
_TF32 = Tile(64, 128, 32, 8, 3), Tile(64, 64, 32, 4, 2)
_FP32 = Tile(64, 64, 16, 8, 1), Tile(32, 32, 16, 2, 2)  # no tensor cores: operands pass through registers


def lse_tiles(target: Target, rows: Side, columns: Side, precision: str) -> list[Tile]:
    """Tiles of the log-sum-exp kernel that fit ``target`` and both sides, the one most likely to be fastest first."""
    return _fitting(target, rows, columns, precision, _HALF, _WITH_IDS)


def gradient_tiles(target: Target, rows: Side, columns: Side, precision: str) -> list[Tile]:
    """The same of the gradient kernel."""
    return _fitting(target, rows, columns, precision, _HALF_GRADIENT, None)


def _fitting(
    target: Target, rows: Side, columns: Side, precision: str, half: Mapping[int, tuple[Tile, ...]], most: int | None
) -> list[Tile]:
    dtype, (B, N) = rows.embedding.dtype, (len(rows.embedding), len(columns.embedding))
    tiles = half[_family(target.arch)] if dtype.itemsize == 2 else _TF32 if precision == "tf32" else _FP32
    if dtype.itemsize == 2 and not all(_has_tma(side.embedding) for side in (rows, columns)):
        tiles = _UNALIGNED
    found = []
    for tile in tiles:
        staged = tile.num_stages * (tile.block_m + tile.block_n) * tile.block_k * dtype.itemsize
        stored = tile.block_m * tile.block_n * dtype.itemsize
        small = rows.ids is None or most is None or tile.block_m * tile.block_n <= most
        if max(staged, stored) <= target.shared and small:
            found.append(tile)
    # A small batch has too few large tiles to occupy the card.
    busy = [tile for tile in found if -(-B // tile.block_m) * -(-N // tile.block_n) >= target.processors]
    return busy or found[-1:]


_WITH_IDS = 128 * 128
"""Logits of a tile whose rows and columns have ids: larger ones spill."""


def _family(arch: int) -> int:
    """The architecture whose tiles are taken: sm_89 and sm_120 have neither wgmma nor tcgen05."""
    return {90: 90, 100: 100, 103: 100}.get(arch, 80)


def _has_tma(rows: Tensor) -> bool:
    """True if TMA can read ``rows``: it wants multiples of 16 bytes."""
    aligned = rows.storage_offset() * rows.itemsize % 16 == 0
    return bool(rows.itemsize == 2 and aligned and rows.stride(0) * rows.itemsize % 16 == 0)


def online_tile(tile: Tile) -> Tile:
    """The tile of a launch with maxima, which needs more registers and is rarely met."""
    block_m, block_n, warps = min(tile.block_m, 128), min(tile.block_n, 64), max(8, tile.num_warps)
    return tile._replace(block_m=block_m, block_n=block_n, num_warps=warps, warp_specialize=False)


def programs(tile: Tile, device: torch.device, B: int, N: int) -> int:
    """Number of programs of a launch for B x N logits: with TMA as many as run at a time, each for many tiles."""
    tiles = -(-B // tile.block_m) * -(-N // tile.block_n)
    together = 2 if tile.block_m * tile.block_n <= 128 * 128 else 1
    return min(tiles, together * target_of(device).processors) if tile.tma else tiles


def rows_that_fit(memory: int, bytes_of_a_row: float, B: int, block: int) -> int:
    """Rows of a stripe: as many as fit ``memory``, in stripes of nearly equal size that are whole tiles."""
    stripes = -(-B // max(block, int(memory / bytes_of_a_row) // block * block))
    return min(B, -(-B // stripes // block) * block)


def key_of(rows: Side, columns: Side) -> str:
    """The name under which a choice is remembered: sizes that change are taken to the next power of two."""
    B, N = (1 << (len(side.embedding) - 1).bit_length() for side in (rows, columns))
    return f"{rows.embedding.dtype} {B}x{N}x{rows.embedding.shape[1]} {rows.ids is not None}"


def target_of(device: torch.device) -> Target:
    """The properties of the current GPU; of an H100 where tensors are fake or the kernel is interpreted."""
    return _present(device.index) if device.type == "cuda" and torch.cuda.is_available() else TARGETS[90]


@cache
def _present(index: int | None) -> Target:
    properties = torch.cuda.get_device_properties(index)
    arch = 10 * properties.major + properties.minor
    known = TARGETS[max((known for known in TARGETS if known <= arch), default=80)]
    shared = getattr(properties, "shared_memory_per_block_optin", known.shared)
    return Target(arch, properties.multi_processor_count, shared)


def fastest(configs: list[Tile], key: str, run: Callable[[Tile], Any], like: Tensor) -> Tile:
    """The fastest configuration on this device, remembered under ``key`` here and on disk; without a GPU the first one.

    ``run`` is called several times for each config where nothing is remembered.
    """
    if len(configs) == 1 or not _can_measure(like):
        return configs[0]
    known = _remembered()
    key = f"{torch.cuda.get_device_name(like.device)} {key}"
    if known.get(key) not in [list(config) for config in configs]:
        best = min(configs, key=lambda config: _milliseconds(lambda: run(config)))
        known[key] = list(best)
        _remember(known)
    return Tile._make(known[key])


def _can_measure(like: Tensor) -> bool:
    wanted = os.environ.get("FGCLIP_AUTOTUNE") != "0"
    return wanted and like.is_cuda and torch.cuda.is_available() and not torch.cuda.is_current_stream_capturing()


def _milliseconds(run: Callable[[], Any], repeats: int = 5) -> float:
    run()  # the first run compiles
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / repeats


def _file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or home_cache()) / "fgclip_fast" / "contrastive_loss.json"


@cache
def _remembered() -> dict[str, list[int]]:
    try:
        return json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}


def _remember(known: dict[str, list[int]]) -> None:
    """Write the choices; where that fails, the next run only has to time again."""
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_json(_file(), known)
    except OSError:
        pass
