"""The whole training step: images a second, share of the card's arithmetic, memory, launches, waiting."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import problems
from benchmarks.gpu.case import Case, Figures, Value
from benchmarks.gpu.clock import rates, times
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.step import Step, flop_of
from fgclip_fast.cost.cards import CARDS

FINEHARD = 0.8  # hard regions of an image, on average
WORKLOADS = {"FineHARD": FINEHARD, "all hard": float(problems.BOXES)}
STEPS = 4
OPTIONS: dict[str, dict[str, Any]] = {
    "eager": {},
    "residual in bf16": {"residual": "bf16"},
    "recomputed": {"recompute": "blocks"},
}


def cases(sizes: Sizes) -> Iterator[Case]:
    """Both workloads with each option."""
    for workload, images in zip(WORKLOADS, sizes.steps, strict=True):
        for option, fields in OPTIONS.items():
            yield case(sizes, images, workload, option, fields)


def case(sizes: Sizes, images: int, workload: str, option: str, fields: dict[str, Any]) -> Case:
    """One step of ``images``; ``fields`` are of the model's config."""

    def run() -> Figures:
        model = replace(sizes.model, **fields)
        batch = problems.batch(sizes, images, WORKLOADS[workload])
        return measured(Step(sizes, model, batch), sizes, images, flop_of(model, batch))

    return Case(f"{images} images, {workload}, {option}", run)


def measured(step: Callable[[], object], sizes: Sizes, images: int, flop: float | None = None) -> Figures:
    """Times of a step, and what its profile shows; ``flop`` are those of the model, for its utilisation."""
    if sizes.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    figures = rates(times(step, sizes, 1 if sizes.rehearsal else STEPS), flop or 0.0)
    wall = figures["wall ms"]
    assert isinstance(wall, float)
    figures["images/s"] = 1e3 * images / wall
    if flop and (peak := _stated_peak(sizes)):
        figures["MFU of the stated peak"] = flop / (wall / 1e3) / peak
    if sizes.on_gpu:
        figures["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
    return figures | _profile(step, sizes)


def _stated_peak(sizes: Sizes) -> float | None:
    """FLOP/s in bf16 of the datasheet, where the card's name is known."""
    name = torch.cuda.get_device_name(sizes.device).lower() if sizes.on_gpu else ""
    known = [key for key in CARDS if re.search(rf"\b{key}\b", name) and "pcie" not in name]  # slower ones
    return CARDS[known[0]].half if known else None


def _profile(step: Callable[[], object], sizes: Sizes) -> dict[str, Value]:
    """Launches of one step, and the shares of its time in which the GPU computes and the host waits for it."""
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * sizes.on_gpu]
    with profile(activities=activities) as recorded, torch.profiler.record_function("step"):
        step()
        if sizes.on_gpu:
            torch.cuda.synchronize()
    events = recorded.events() or []
    on_device = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    whole = next(e.time_range.elapsed_us() for e in events if e.name == "step" and e not in on_device)
    # Ranges that the program names, such as this step, are shown on the device too.
    kernels = [event for event in on_device if not getattr(event, "is_user_annotation", False)]
    # The last synchronisation is our own: it waits for the device, the others for a stream or an event.
    waits = [e for e in events if e.name in ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")]
    return {
        "launches": sum("LaunchKernel" in event.name for event in events),
        "GPU busy": sum(e.time_range.elapsed_us() for e in kernels) / whole,
        "host blocked": sum(e.time_range.elapsed_us() for e in waits) / whole,
        "waits": len(waits),
    }
