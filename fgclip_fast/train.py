"""The command ``fgclip train``, and the training loop.

Without an argument it trains a tiny model on the embedded data set, on a CPU, in minutes, and evaluates it.
"""

import logging
import os
import random
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch

from fgclip_fast import (
    command,
    command_line,
    config_file,
    figures_file,
    figures_table,
    heap,
    preflight,
    run_folder,
    run_parts,
    suites,
)
from fgclip_fast.config import Config
from fgclip_fast.data.fingerprint import fingerprints
from fgclip_fast.data.loader import Loader
from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.evaluation.share import Share, Stopped
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops.contrastive_loss import agree_batch_size
from fgclip_fast.run_folder import Lock
from fgclip_fast.run_state import State, machine_of, order_of, settings_of
from fgclip_fast.scenes import locate
from fgclip_fast.scenes.locate import Source
from fgclip_fast.suites import Task
from fgclip_fast.training import (
    checkpoint,
    distributed,
    freezing,
    grad_cache,
    lora,
    optim,
    out_of_memory,
    start,
    wandb_run,
)
from fgclip_fast.training.average import Average
from fgclip_fast.training.best import Best
from fgclip_fast.training.distributed import StopFlag
from fgclip_fast.training.divergence import SkippedSteps
from fgclip_fast.training.host_copy import BatchCopy
from fgclip_fast.training.interruption import Interrupted, Interruption
from fgclip_fast.training.monitor import Monitor
from fgclip_fast.training.objective import objective
from fgclip_fast.training.saver import Saver
from fgclip_fast.training.timing import Stopwatch
from fgclip_fast.whole_file import write_json

log = logging.getLogger("fgclip_fast")

# Steps before a word about a term that finds no negatives.
_LOOK = 20
# Records that an error names.
_NAMED = 16
# Seconds for which the last checkpoint is tried again; who sent a signal will not wait long.
_PATIENCE, _PATIENCE_INTERRUPTED = 600.0, 20.0


@dataclass(frozen=True)
class Run:
    """The result of :func:`train`.

    Attributes:
        path: folder of the run.
        model: as trained.
        config: as saved: with the geometry of the loaded weights, and the folder.
        figures: of the last evaluation, by name.
    """

    path: Path
    model: FGCLIP
    config: Config
    figures: dict[str, dict[str, Any]]


def train(config: Config) -> Run:
    """Train as a config says, or go on with a run, until all steps are done or the user interrupts.

    Raises:
        ValueError: the config does not fit the data, the processes, or the run that it resumes.
        OSError: shards, weights or a run to resume do not exist, or the run's folder cannot be written.
    """
    with Lock() as lock:
        return _train(config, lock)


def _train(config: Config, lock: Lock) -> Run:
    lora.check(config.lora)
    wandb_run.check(config.wandb)
    processes = distributed.start(preflight.device(config.device))
    config, saved = run_folder.place(config, processes, lock)
    config = replace(config, data=locate.decided(config.data))
    general = suites.general(Path(config.forgetting)) if config.forgetting else []
    source, shards = run_parts.find_data(config, processes)
    heap.keep_freed_memory(processes.device.type)
    _seed_everything(config.seed, config.threads)
    model = run_parts.model(config, saved).to(processes.device)
    config = replace(config, model=model.config)
    freezing.freeze(model, config.freeze)
    lora.add(model, config.lora, saved)
    loader = run_parts.loader(config, source, shards["train"], model, processes)
    if config.micro_batch_size == "auto":
        config = replace(config, micro_batch_size=run_parts.fitting(config, loader, processes))
    steps = run_parts.steps(config, loader)
    run = Path(str(config.output))
    if config.dry_run:
        from fgclip_fast import dry_run  # here, since a run needs none of it

        with out_of_memory.explained(config.images_per_pass):
            dry_run.describe(config, model, loader, steps, processes)
        return Run(run, model, config, {})
    optimizer, average = optim.adamw(model, config.optim), Average(model, config.optim.average)
    data = distributed.of_first(processes, partial(fingerprints, shards))
    order = order_of(replace(config, data=source.data), loader, processes, data["train"])
    machine = machine_of(config, processes)
    state = State(model, optimizer, average, loader, order, settings_of(config, steps), machine, config)
    done = state.restore(saved)
    best = Best(run, config.keep_best, config.patience, done, writes=processes.first)
    eval_every = loader.steps_per_epoch if config.eval_every == "epoch" else config.eval_every
    run_folder.make(run, config, processes, lock, steps, done, data)
    agree_batch_size(config.batch_size, processes.group, processes.device)
    network = distributed.wrap(model, processes)
    losses_of = partial(objective, weights=config.loss, group=processes.group)
    wandb = wandb_run.WandbRun(run, config.wandb, asdict(config), done) if config.wandb and processes.first else None
    monitor = Monitor(run, steps, done, processes=processes.world_size, writes=processes.first, wandb=wandb)
    watch = Stopwatch(model, monitor.note, processes.device, done)
    stop, batches, figures, groups = StopFlag(processes), loader.batches(after=done), {}, 0
    skips, failed = SkippedSteps(config.max_skipped), ""
    saver = Saver(config.checkpoint_every, config.checkpoint_minutes)
    to_device = BatchCopy(processes.device)
    embed = grad_cache.embedder(network, processes.device.type, config.precision == "bf16")

    with distributed.explained(processes), Interruption() as interruption:
        share = Share(processes.group, stop=lambda: interruption.wanted)
        task = Task(data=source.data, loss=config.loss, share=share)
        waiting = interruption.waiting if processes.group is None else nullcontext
        model.train()
        step = done
        while step < steps:
            watch.step_begins()
            try:
                with waiting():
                    arrived = next(batches)
            except Interrupted:
                break
            # Counted before the batches move, since reading the lengths of padded texts would wait for a GPU.
            tokens = sum(batch.texts.processed_tokens for batch in arrived)
            groups += sum(len(batch.hard_region) for batch in arrived)
            if step - done == _LOOK and groups == 0 and processes.first:
                _tell_of_no_negatives(config)
            # The step alone: what validates or saves has other causes to run out of memory.
            with out_of_memory.explained(config.images_per_pass):
                gradient = partial(grad_cache.backward, network, embed, to_device(arrived), losses_of)
                monitor.waited(watch.data_arrived())
                losses = out_of_memory.tried(gradient, config.images_per_pass, again=processes.group is None)
                if losses is None:
                    model.zero_grad(set_to_none=True)
                    config = _in_smaller_passes(config, loader, step)
                    state = replace(state, config=config, machine=machine_of(config, processes))
                    batches.close()
                    batches = loader.batches(after=step)
                    continue
                watch.gradients_done()
                lr = optim.set_lr(optimizer, config.optim, step, steps)
                norm, skipped = optim.update(model, optimizer, config.optim)
                watch.step_ends()
            step += 1
            average.update(step)
            monitor.record(step, losses, norm, skipped, lr, config.batch_size, tokens)
            if skips.too_many(skipped):
                failed = f"{config.max_skipped} steps in a row without a finite gradient, up to step {step - 1}"
                break
            if stop.agreed(interruption.wanted) or step == steps:
                break
            if processes.first and saver.due(step):
                monitor.note(step, "records", dict(loader.counts))
                monitor.settle()
                saver.submit(state.job(run, step, config.keep))
            if eval_every and step % eval_every == 0:
                try:
                    with average.in_model():
                        figures = figures_file.values(suites.evaluate(model, suites.during_training(source), task))
                except Stopped:
                    break
                monitor.note(step, "validation", figures.get("records", {}))
                saver.submit(state.best_job(best, figures.get("records", {}), step, writes=processes.first))
                if best.exhausted():
                    log.info("patience: %d validations without a better %s", config.patience, config.keep_best)
                    steps = step
                    break
                monitor.pause_clock()
        if processes.first and not failed and (step > done or not done):
            monitor.note(step, "records", dict(loader.counts))
            monitor.settle()
            saver.finish(state.job(run, step, config.keep), _PATIENCE if step == steps else _PATIENCE_INTERRUPTED)
        saver.wait()
        monitor.close()
        stop.close()
        if failed:
            raise ValueError(f"{failed}; {_way_back(run, loader, step - 1)}")
        if step == steps:
            try:
                figures = _evaluated(run, step, state, best, source, general, task)
            except Stopped:
                log.info("interrupted: %s is trained and saved; `fgclip evaluate %s` measures it", run, run)
    average.swap()
    lora.merge(model)
    distributed.stop(processes)
    log.info("%s: %d of %d steps done", run, step, steps)
    return Run(run, model, config, figures)


def _seed_everything(seed: int, threads: int | None) -> None:
    """Seed the global generators of Python, NumPy and torch; data order and augmentation have their own."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)


def _in_smaller_passes(config: Config, loader: Loader, step: int) -> Config:
    """Halve the passes of the steps after ``step``, which keep their samples; return the config, as saved anew."""
    config = replace(config, micro_batch_size=out_of_memory.smaller(config.images_per_pass))
    loader.set_micro_batch_size(config.images_per_pass)
    config_file.save(config, Path(str(config.output)) / "config.yaml")
    log.warning("step %d is taken again, with the same gradient, in passes of %d images, and those that follow it too",
                step + 1, config.images_per_pass)  # fmt: skip
    return config


def _way_back(run: Path, loader: Loader, step: int) -> str:
    """What to look at and where to go on after a run that went wrong."""
    saved = checkpoint.newest(run)
    names = loader.names(step)
    records = "; ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    way = f"the newest checkpoint is {saved}; go on from one by --resume, with a lower --optim.lr" if saved else ""
    return f"{way or 'nothing was saved'}; records of the last step: {records}"


def _tell_of_no_negatives(config: Config) -> None:
    if config.loss.hard_negative > 0:
        log.warning(
            "the first %d steps hold no negatives, so the hard-negative term teaches nothing; make some by "
            "`fgclip curate negatives`, or pass --loss.hard-negative 0",
            _LOOK + 1,
        )


def _evaluated(
    run: Path, step: int, state: State, best: Best, source: Source, general: Sequence[str], task: Task
) -> dict[str, dict[str, Any]]:
    """Evaluate the trained model, show and write its figures, and return them by name."""
    model, first = state.model, task.share.first
    with state.average.in_model():
        found = suites.evaluate(model, suites.of_run(source), task)
        kept, changes = _forgetting(model, state.config, general, task) if general else ({}, {})
        settings_of_model = figures_file.settings(model) if first else None
    state.best_job(best, figures_file.values(found).get("records", {}), step, writes=first)()
    weights = checkpoint.at(run, step) / "model"
    figures = figures_file.described({**found, **kept}, weights, step, task.limit, settings_of_model)
    figures = {name: f | ({"against": changes[name]} if name in changes else {}) for name, f in figures.items()}
    if first:
        # Shown first, so that a disk that takes no file does not lose them.
        figures_table.show(figures)
        write_json(run / figures_file.FIGURES, figures)
        figures_file.save_outcomes(run, found, source, step)
        best.show()
    return figures


def _forgetting(
    model: FGCLIP, config: Config, names: Sequence[str], task: Task
) -> tuple[dict[str, Figures], dict[str, dict[str, Any]]]:
    """Evaluate general suites; return the figures, and their comparison with the weights that the run started from."""
    task = replace(task, questions=Path(str(config.forgetting)), several=True)
    found = suites.evaluate(model, names, task)
    begun = start.again(config).to(model.logit_scale.device)
    return found, figures_file.compared(found, suites.evaluate(begun, names, task), figures_file.INIT, 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    with command.frame("train"):
        config = command_line.parse(sys.argv[1:] if arguments is None else arguments)
        run = train(config)
        if not config.dry_run and int(os.environ.get("RANK", 0)) == 0:
            from fgclip_fast import report  # here, since who calls train() from Python need not load it

            log.info("%s shows what the run has learned", report.write(run.path, run.model.device))


if __name__ == "__main__":
    main()
