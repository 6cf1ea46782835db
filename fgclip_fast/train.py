"""``python -m fgclip_fast.train``: trains FG-CLIP. The loop, read top to bottom.

Without an argument it trains a tiny model on the embedded data set, on a CPU, in minutes, and evaluates it.
"""

import logging
import os
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.distributed as dist

from fgclip_fast import command, command_line, evaluate, preflight, run_folder
from fgclip_fast.config import Config
from fgclip_fast.data.loader import Loader
from fgclip_fast.inputs.batch import Batch
from fgclip_fast.model import pretrained
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops.contrastive_loss import agree_batch_size
from fgclip_fast.ops.tree import EOS
from fgclip_fast.scenes.locate import EMBEDDED, locate
from fgclip_fast.training import checkpoint, distributed, grad_cache, optim
from fgclip_fast.training.distributed import Processes, StopFlag
from fgclip_fast.training.faults import Interruption
from fgclip_fast.training.monitor import Monitor
from fgclip_fast.training.objective import objective
from fgclip_fast.training.timing import Stopwatch

log = logging.getLogger("fgclip_fast")


@dataclass(frozen=True)
class Run:
    """What :func:`train` leaves: the folder, the model, the config as resolved, and the last evaluation."""

    path: Path
    model: FGCLIP
    config: Config
    figures: dict[str, Any]


def train(config: Config) -> Run:
    """Trains as ``config`` says, or goes on with a run; returns when all steps are done or the user interrupts.

    Raises:
        ValueError: the config does not fit the data, the processes, or the run that it resumes.
        OSError: shards, weights or a run to resume are not there, or the run's folder cannot be written.
    """
    processes = distributed.start(preflight.device(config.device))
    listed = _listed_shards(config, processes)
    _fix(config.seed, config.threads)
    config, saved = run_folder.place(config, processes)
    model = _model(config, saved).to(processes.device)
    config = replace(config, model=model.config)
    loader = _loader(config, model, processes, listed["train"])
    steps = _steps(config, loader)
    if config.dry_run:
        return _describe(config, model, loader, steps)
    run = Path(str(config.output))
    optimizer = optim.adamw(model, config.optim)
    done = _restore(optimizer, loader, config, saved, processes)
    shards = {"train": loader.shards, "val": listed["val"] or locate(config.data).val}
    run_folder.make(run, config, processes, steps, shards)
    agree_batch_size(config.batch_size, processes.group, processes.device)
    network = distributed.wrap(model, processes)
    monitor = Monitor(run, steps, done, writes=processes.first)
    watch = Stopwatch(model, monitor.note, processes.device, done)
    save = partial(_save, run, model, optimizer, config, loader, processes)
    stop, batches, figures = StopFlag(processes), loader.batches(after=done), {}
    on_gpu = processes.device.type == "cuda"

    def embed(batch: Batch) -> Embeddings:
        with torch.autocast(processes.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            return network(batch)

    with Interruption() as interruption:
        model.train()
        step = done
        while step < steps:
            watch.begin()
            micro_batches = [b.to(processes.device, non_blocking=on_gpu) for b in next(batches)]
            monitor.waited(watch.lap("data"))
            lr = optim.set_lr(optimizer, config.optim, step, steps)
            losses = grad_cache.backward(
                network, embed, micro_batches, partial(objective, weights=config.loss, group=processes.group)
            )
            watch.lap("loss")
            norm, skipped = optim.update(model, optimizer, config.optim)
            watch.lap("optimizer")
            step += 1
            tokens = sum(len(b.token if b.tree is None else b.tree.token) for b in micro_batches)
            scale = processes.world_size
            monitor.record(step, losses, norm, skipped, lr, config.batch_size * scale, tokens * scale)
            ending = stop.agreed(interruption.wanted) or step == steps
            if ending or (config.checkpoint_every and step % config.checkpoint_every == 0):
                save(step)
                monitor.note(step, "records", dict(loader.counts))
            if config.eval_every and step % config.eval_every == 0 and not ending:
                figures = evaluate.on_records(model, config) if processes.first else {}  # others would get the same
                monitor.note(step, "validation", figures)
                monitor.pause_clock()
            if ending:
                break
    monitor.close()
    stop.close()
    distributed.stop(processes)  # before the first one evaluates: the others need not wait for that
    if processes.first and not interruption.wanted:
        figures = evaluate.evaluate_run(run, model, config)
    log.info("%s: %d of %d steps done", run, step, steps)
    return Run(run, model, config, figures)


def _listed_shards(config: Config, processes: Processes) -> dict[str, list[Path]]:
    """List the shards once, before weights are read and the run has a folder; those of the embedded set come later."""
    train = [] if config.data.train == EMBEDDED else preflight.list_shards("data.train", config.data.train)
    # Only the first process reads validation shards.
    reads_val = processes.first and config.data.val not in ("", EMBEDDED)
    return {"train": train, "val": preflight.list_shards("data.val", config.data.val) if reads_val else []}


def _fix(seed: int, threads: int | None) -> None:
    """Seeds what draws without being told a seed; data order and draws are arithmetic and need none."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)


def _model(config: Config, saved: Path | None) -> FGCLIP:
    model = _weights(config, saved)
    if (rows := model.config.text.vocabulary) <= EOS:
        raise ValueError(f"model.text.vocabulary must be >= {EOS + 1}, as many as CLIP's tokens, got {rows}")
    return model


def _weights(config: Config, saved: Path | None) -> FGCLIP:
    if saved is not None:
        return pretrained.load(saved / "model", like=config.model)
    if config.init is None:
        return FGCLIP(config.model)
    model = pretrained.load(config.init, like=config.model)
    with torch.no_grad():  # the released trainer starts both fine scales from the global one, each time
        for scale in (model.logit_scale_finegraind, model.logit_scale_hardneg):
            scale.copy_(model.logit_scale)
    return model


def _loader(config: Config, model: FGCLIP, processes: Processes, shards: list[Path]) -> Loader:
    data = locate(config.data) if processes.first else config.data
    if processes.group is not None:
        dist.barrier(processes.group)  # the first process writes the embedded set
        data = locate(config.data)
    if config.loss.hard_negative == 0:
        data = replace(data, negatives=0)  # texts that no term would see
    return Loader(
        data,
        image_size=config.model.vision.image_size,
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        seed=config.seed,
        tokenizer=model.tokenizer,
        rank=processes.rank,
        world_size=processes.world_size,
        packing=config.model.packing,
        device=processes.device,
        shards=shards,
    )


def _steps(config: Config, loader: Loader) -> int:
    steps = config.steps or round(config.epochs * loader.steps_per_epoch)
    if steps == 0:
        raise ValueError(
            f"epochs must make a step or more, at {loader.steps_per_epoch} steps each, got {config.epochs}"
        )
    return steps


def _restore(
    optimizer: torch.optim.Optimizer, loader: Loader, config: Config, saved: Path | None, processes: Processes
) -> int:
    """Puts the optimizer and the counts of records back where a checkpoint left them; returns the steps done."""
    if saved is None:
        return 0
    state = checkpoint.load_state(saved)
    for name, was in state["order"].items():
        now = _order(config, loader, processes)[name]
        if now != was:
            raise ValueError(f"resume: {name} was {was} and is {now} now; the run would not see the same samples")
    optimizer.load_state_dict(state["optimizer"])
    loader.counts = Counter(state["counts"])
    log.info("resuming %s after step %d", saved, state["step"])
    return state["step"]


def _order(config: Config, loader: Loader, processes: Processes) -> dict[str, Any]:
    """What decides which pixels come when."""
    d, images = config.data, config.batch_size * processes.world_size
    order = {"global batch": images, "seed": config.seed, "data.train": d.train, "lanes": d.lanes, "window": d.window}
    return order | {"decoder": loader.decoder}


def _save(run, model, optimizer, config, loader, processes, step: int) -> None:
    if processes.first:
        order, counts = _order(config, loader, processes), dict(loader.counts)
        state = {"optimizer": optimizer.state_dict(), "order": order, "counts": counts}
        checkpoint.save(run, step, partial(pretrained.save, model), state, config.keep)


def _describe(config: Config, model: FGCLIP, loader: Loader, steps: int) -> Run:
    """Prints what would happen, and the first batch."""
    parameters = sum(p.numel() for p in model.parameters())
    micro_batches = next(loader.batches())
    batch = micro_batches[0]
    print(f"parameters      {parameters:,}")
    print(f"steps           {steps:,} of {config.batch_size} images a process; {loader.steps_per_epoch:,} an epoch")
    print(f"weights+Adam    {parameters * 16 / 1e9:.2f} GB, and activations")
    shapes = {name: list(value.shape) for name, value in batch._asdict().items() if isinstance(value, torch.Tensor)}
    print("first batch     " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))
    if batch.tree is not None:
        print(f"packed texts    {len(batch.tree.token):,} of {len(batch.token):,} tokens")
    if config.card is not None:
        from fgclip_fast import cost  # which the loop itself never needs

        card = cost.CARDS[config.card]
        print(cost.verdict(cost.fit(config, card, micro_batches), card, config))
    return Run(Path(str(config.output)), model, config, {})


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    with command.frame("train"):
        config = command_line.parse(sys.argv[1:] if arguments is None else arguments)
        run = train(config)
        if not config.dry_run and int(os.environ.get("RANK", 0)) == 0:
            from fgclip_fast import report  # which the loop itself never needs

            log.info("%s tells what it learned", report.write(run.path, run.model.device))


if __name__ == "__main__":
    main()
