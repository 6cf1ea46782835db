"""Say what a run would be and measure its first steps, without writing anything: ``fgclip train --dry-run``."""

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import chain
from statistics import median

import torch

from fgclip_fast import cost
from fgclip_fast.cost.here import free_memory
from fgclip_fast.inputs.batch import Batch
from fgclip_fast.ops.contrastive_loss import agree_batch_size
from fgclip_fast.run.parts import Parts
from fgclip_fast.training import grad_cache, optim
from fgclip_fast.training.host_copy import BatchCopy
from fgclip_fast.training.monitor import peak_memory

WARM_UP, MEASURED = 2, 3
"""Steps. The first ones make Adam's state, compile kernels and fill the queues of the workers."""


def describe(parts: Parts) -> None:
    """Print sizes, steps and the shapes of the first batch; then what a step takes.

    With a card in the config a step there is counted; else the first steps are taken here and measured, which trains
    the model. The first process prints.
    """
    config, processes = parts.config, parts.processes
    batches = parts.loader.batches()
    micro_batches = next(batches)
    if processes.first:
        _print_sizes(parts, micro_batches[0])
    if config.card is None:
        _measure(parts, chain([micro_batches], batches))
    elif processes.first:
        card = cost.CARDS[config.card]
        print(cost.verdict(cost.fit(config, card, micro_batches), card, config))


def _print_sizes(parts: Parts, batch: Batch) -> None:
    parameters = sum(p.numel() for p in parts.model.parameters())
    trained = sum(p.numel() for p in parts.model.parameters() if p.requires_grad)
    of_batch = {**batch._asdict(), **batch.texts._asdict()}
    steps, images, epoch = parts.steps, parts.config.batch_size, parts.loader.steps_per_epoch
    print(f"parameters      {parameters:,}" + (f", {trained:,} of them trained" if trained < parameters else ""))
    print(f"steps           {steps:,} of {images} images a process; {epoch:,} an epoch")
    print(f"weights+Adam    {(parameters * 4 + trained * 12) / 1e9:.2f} GB, and activations")
    shapes = {name: list(value.shape) for name, value in of_batch.items() if isinstance(value, torch.Tensor)}
    print("first batch     " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))
    if batch.texts.tree is not None:
        print(f"packed texts    {batch.texts.processed_tokens:,} of {len(batch.texts.token):,} tokens")


def _measure(parts: Parts, batches: Iterator[list[Batch]]) -> None:
    """Take a few steps, all of each, and print what one takes and how long the run would be."""
    config, model, processes = parts.config, parts.model, parts.processes
    if processes.first:
        print(f"measuring {WARM_UP + MEASURED} steps; Ctrl-C stops this", flush=True)
    agree_batch_size(config.batch_size, processes.group, processes.device)
    optimizer, gradient = optim.adamw(model, config.optim), grad_cache.of_run(model, config, processes)
    to_device = BatchCopy(processes.device)

    model.train()
    seconds, waited = [], []
    for _ in range(WARM_UP + MEASURED):
        began = time.perf_counter()
        arrived = next(batches)
        waited.append(time.perf_counter() - began)
        gradient(to_device(arrived))
        optim.update(model, optimizer, config.optim)
        if processes.device.type == "cuda":
            torch.cuda.synchronize(processes.device)
        seconds.append(time.perf_counter() - began)
    if processes.first:
        step, waiting = _pace(seconds[WARM_UP:], waited[WARM_UP:], batches, parts.loader.queued)
        images = config.batch_size * processes.world_size
        print(f"a step here     {step:.2f} s, {images / step:.1f} images/s; {waiting:.0%} of it waits for data")
        print(f"the run here    {timedelta(seconds=round(step * parts.steps))}, without validation and checkpoints")
        left = free_memory(processes.device) / 1e9
        print(f"peak memory     {peak_memory():.1f} GB: it fits this machine, {left:.1f} GB are left")


def _pace(
    seconds: Sequence[float], waited: Sequence[float], batches: Iterator[object], queued: int
) -> tuple[float, float]:
    """Seconds of a step of a long run, and the share of them that waits for data.

    Workers fill their queues before the first step, so a few steps never wait: what workers need is measured by itself,
    once the queues are empty.

    Args:
        seconds: of the measured steps.
        waited: the part of each that waited for its batch.
        batches: those that follow.
        queued: batches that the workers may have made ahead; 0: there are none, and each step waits for its own.
    """
    if not queued:
        return median(seconds), sum(waited) / sum(seconds)
    for _ in range(queued):
        next(batches)
    began = time.perf_counter()
    for _ in range(queued):  # a multiple of the workers, which end their batches together
        next(batches)
    data = (time.perf_counter() - began) / queued
    computed = median(whole - part for whole, part in zip(seconds, waited, strict=True))
    step = max(computed, data)
    return step, 1 - computed / step
