"""Compute which configurations of the contrastive loss's kernels fit a GPU, and autotune among these.

This is apart from the kernels, since timing needs a device; compiling ahead of time or interpreting does not.
"""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fgclip_fast.whole_file import write_json

GRADIENT_LAUNCH = {"BLOCK_M": 32, "BLOCK_N": 128, "num_warps": 4}
"""Tile of the gradient kernel: 32 values a thread, 512 bytes a row."""


class Target(NamedTuple):
    """The properties of a GPU that configurations are computed from."""

    arch: int
    processors: int
    shared: int
    """Bytes of shared memory that one program may have."""
    l2: int
    """Bytes of L2 cache."""
    values: int
    """Logits that a thread's 255 registers hold, with what belongs to their rows and columns. An sm_100 thread gets
    them from tensor memory as a piece of one row, so that each has a column of its own."""


TARGETS = {
    80: Target(80, 108, 163 * 2**10, 40 * 2**20, 64),  # A100
    90: Target(90, 132, 227 * 2**10, 50 * 2**20, 64),  # H100, H200
    100: Target(100, 148, 227 * 2**10, 126 * 2**20, 32),  # B200
}


class LseConfig(NamedTuple):
    """A launch of the log-sum-exp kernel: tiles of BLOCK_M x BLOCK_N logits, several of which make a program's span."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int
    span_m: int
    span_n: int

    def launch(self) -> dict[str, int]:
        """Arguments of the launch."""
        blocks = {"BLOCK_M": self.block_m, "BLOCK_N": self.block_n, "BLOCK_K": self.block_k}
        spans = {"SPAN_M": self.span_m, "SPAN_N": self.span_n}
        return {**blocks, **spans, "num_warps": self.num_warps, "num_stages": self.num_stages}


_HALF = (128, 128, 64, 8, 3), (256, 64, 64, 8, 3), (128, 64, 64, 4, 4), (128, 64, 64, 8, 4), (64, 64, 64, 4, 4)
_TF32 = (128, 64, 32, 8, 3), (64, 64, 32, 4, 4)
_FP32 = (64, 64, 16, 16, 2), (64, 64, 8, 8, 2), (32, 32, 16, 4, 2)  # no tensor cores: operands pass through registers


def lse_configs(target: Target, dtype: torch.dtype, precision: str, B: int, N: int) -> list[LseConfig]:
    """Configurations that fit ``target``, the one most likely to be fastest first."""
    tiles = _HALF if dtype.itemsize == 2 else _TF32 if precision == "tf32" else _FP32
    configs = []
    for block_m, block_n, block_k, num_warps, num_stages in tiles:
        staged = num_stages * (block_m + block_n) * block_k * dtype.itemsize
        exchanged = 8 * num_warps * (block_m + block_n)  # sums of rows and columns across warps
        values = block_m * block_n // (32 * num_warps)  # of a thread
        if staged + exchanged <= target.shared and values <= target.values:
            spans = _spans(target, block_m, block_n, B, N)
            configs.append(LseConfig(block_m, block_n, block_k, num_warps, num_stages, *spans))
    return configs


def _spans(target: Target, block_m: int, block_n: int, B: int, N: int) -> tuple[int, int]:
    """The longest span up to 2048 that leaves four programs a multiprocessor: longer spans store fewer sums."""
    span_m, span_n = block_m, block_n
    while max(span_m, span_n) < 2048:
        longer = (2 * span_m, span_n) if span_m <= span_n else (span_m, 2 * span_n)
        if -(-B // longer[0]) * -(-N // longer[1]) < 4 * target.processors:
            break
        span_m, span_n = longer
    return span_m, span_n


def part_shape(target: Target, dtype: torch.dtype, B: int, N: int) -> tuple[int, int]:
    """Rows and columns of logits that half the L2 cache holds, with their gradients in ``dtype`` beside them."""
    values = target.l2 // 2 // (4 if dtype.itemsize == 4 else 4 + dtype.itemsize)
    side = int(values**0.5) // 256 * 256
    R = min(B, side)
    C = min(N, max(256, values // max(1, R) // 256 * 256))
    return max(1, R if C < N else min(B, values // max(1, N))), max(1, C)


def target_of(device: torch.device) -> Target:
    """The properties of the current GPU; of an H100 where tensors are fake or the kernel is interpreted."""
    return _present(device.index) if device.type == "cuda" and torch.cuda.is_available() else TARGETS[90]


@cache
def _present(index: int | None) -> Target:
    properties = torch.cuda.get_device_properties(index)
    known = TARGETS[max(arch for arch in TARGETS if arch <= max(80, 10 * properties.major))]
    shared = getattr(properties, "shared_memory_per_block_optin", known.shared)
    return Target(known.arch, properties.multi_processor_count, shared, properties.L2_cache_size, known.values)


def fastest(configs: list[LseConfig], key: str, run: Callable[[LseConfig], Any], like: Tensor) -> LseConfig:
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
    return LseConfig._make(known[key])


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
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fgclip_fast" / "contrastive_loss.json"


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
