"""The command ``fgclip train``, and the training loop.

Without an argument it trains a tiny model on the embedded data set, on a CPU, in minutes, and evaluates it.
"""

import logging
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch

from fgclip_fast import command, command_line, figures_file, figures_table, heap, preflight, run_folder, suites
from fgclip_fast.config import Config
from fgclip_fast.data.loader import Loader
from fgclip_fast.data.shards import expand
from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.evaluation.share import Share
from fgclip_fast.inputs.batch import Batch
from fgclip_fast.model import pretrained
from fgclip_fast.model.embeddings import Embeddings
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops.contrastive_loss import agree_batch_size
from fgclip_fast.ops.tree import EOS
from fgclip_fast.run_folder import State
from fgclip_fast.scenes import locate
from fgclip_fast.scenes.locate import Source
from fgclip_fast.suites import Task
from fgclip_fast.training import checkpoint, distributed, freezing, grad_cache, lora, optim, start
from fgclip_fast.training.average import Average
from fgclip_fast.training.best import Best
from fgclip_fast.training.distributed import Processes, StopFlag
from fgclip_fast.training.host_copy import BatchCopy
from fgclip_fast.training.interruption import Interruption
from fgclip_fast.training.monitor import Monitor
from fgclip_fast.training.objective import objective
from fgclip_fast.training.timing import Stopwatch
from fgclip_fast.whole_file import write_json

log = logging.getLogger("fgclip_fast")


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
    lora.check(config.lora)
    processes = distributed.start(preflight.device(config.device))
    config, saved = run_folder.place(config, processes)
    config = replace(config, data=locate.decided(config.data))
    general = suites.general(Path(config.forgetting)) if config.forgetting else []
    source, shards = _find_data(config, processes)
    heap.keep_freed_memory(processes.device.type)
    _seed_everything(config.seed, config.threads)
    model = _model(config, saved).to(processes.device)
    config = replace(config, model=model.config)
    freezing.freeze(model, config.freeze)
    lora.add(model, config.lora, saved)
    loader = _loader(config, source, shards["train"], model, processes)
    steps = _steps(config, loader)
    run = Path(str(config.output))
    if config.dry_run:
        _describe(config, model, loader, steps)
        return Run(run, model, config, {})
    optimizer, average = optim.adamw(model, config.optim), Average(model, config.optim.average)
    order, settings = run_folder.order_of(config, loader, processes), run_folder.settings_of(config)
    state = State(model, optimizer, average, loader, order, settings, config.lora)
    done = state.restore(saved)
    best = Best(run, config.keep_best, config.patience, done, writes=processes.first)
    eval_every = loader.steps_per_epoch if config.eval_every == "epoch" else config.eval_every
    run_folder.make(run, config, processes, steps, shards)
    agree_batch_size(config.batch_size, processes.group, processes.device)
    network = distributed.wrap(model, processes)
    losses_of = partial(objective, weights=config.loss, group=processes.group)
    task = Task(data=source.data, loss=config.loss, share=Share(processes.group))
    monitor = Monitor(run, steps, done, processes=processes.world_size, writes=processes.first)
    watch = Stopwatch(model, monitor.note, processes.device, done)
    stop, batches, figures = StopFlag(processes), loader.batches(after=done), {}
    to_device = BatchCopy(processes.device)

    def embed(batch: Batch, known: Embeddings | None = None) -> Embeddings:
        with torch.autocast(processes.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            return network(batch, known)

    with Interruption() as interruption:
        model.train()
        step = done
        while step < steps:
            watch.step_begins()
            arrived = next(batches)
            # Counted before the batches move, since reading the lengths of padded texts would wait for a GPU.
            tokens = sum(batch.texts.processed_tokens for batch in arrived)
            micro_batches = to_device(arrived)
            monitor.waited(watch.data_arrived())
            lr = optim.set_lr(optimizer, config.optim, step, steps)
            losses = grad_cache.backward(network, embed, micro_batches, losses_of)
            watch.gradients_done()
            norm, skipped = optim.update(model, optimizer, config.optim)
            watch.step_ends()
            step += 1
            average.update(step)
            monitor.record(step, losses, norm, skipped, lr, config.batch_size, tokens)
            ending = stop.agreed(interruption.wanted) or step == steps
            if processes.first and (ending or (config.checkpoint_every and step % config.checkpoint_every == 0)):
                state.save(run, step, config.keep)
                monitor.note(step, "records", dict(loader.counts))
            if eval_every and step % eval_every == 0 and not ending:
                with average.in_model():
                    figures = figures_file.values(suites.evaluate(model, suites.during_training(source), task))
                monitor.note(step, "validation", figures.get("records", {}))
                state.save_best(best, figures.get("records", {}), step, writes=processes.first)
                if best.exhausted():
                    log.info("patience: %d validations without a better %s", config.patience, config.keep_best)
                    steps, ending = step, True
                    if processes.first:
                        state.save(run, step, config.keep)
                monitor.pause_clock()
            if ending:
                break
    monitor.close()
    stop.close()
    if step == steps:
        with average.in_model():
            found = suites.evaluate(model, suites.of_run(source), task)
            kept, changes = _forgetting(model, config, general, task) if general else ({}, {})
        state.save_best(best, figures_file.values(found).get("records", {}), step, writes=processes.first)
        figures = figures_file.described({**found, **kept}, checkpoint.at(run, step) / "model", step, task.limit)
        figures = {name: f | ({"against": changes[name]} if name in changes else {}) for name, f in figures.items()}
        if processes.first:
            write_json(run / figures_file.FIGURES, figures)
            figures_file.save_outcomes(run, found, source, step)
            figures_table.show(figures)
            best.show()
    average.swap()
    lora.merge(model)
    distributed.stop(processes)
    log.info("%s: %d of %d steps done", run, step, steps)
    return Run(run, model, config, figures)


def _find_data(config: Config, processes: Processes) -> tuple[Source, dict[str, list[Path]]]:
    """Find the data and list the shards, once; the first process writes the embedded set if it is missing.

    The user's own shards come first, so that a typing error in their names does not cost the time of writing that set.
    """
    own = locate.own_patterns(config.data)
    shards = {name: preflight.list_shards(f"data.{name}", pattern) for name, pattern in own.items()}
    source = distributed.first_before_others(processes, partial(locate.resolve, config.data))
    patterns = {"train": source.data.train} | ({"val": source.data.val} if source.data.val else {})
    if not source.data.val and processes.first:
        log.info("data.val names no shards, so the run has no validation; name some by --data.val 'val-*.tar'")
    return source, {name: shards.get(name) or expand(pattern) for name, pattern in patterns.items()}


def _seed_everything(seed: int, threads: int | None) -> None:
    """Seed the global generators of Python, NumPy and torch; data order and augmentation have their own."""
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
    return start.model(config)


def _loader(config: Config, source: Source, shards: list[Path], model: FGCLIP, processes: Processes) -> Loader:
    data = source.data
    if config.loss.hard_negative == 0 and data.negatives:
        data = replace(data, negatives=0)
        log.info("loss.hard_negative is 0, so training reads no negatives; data.negatives holds for validation alone")
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


def _forgetting(
    model: FGCLIP, config: Config, names: Sequence[str], task: Task
) -> tuple[dict[str, Figures], dict[str, dict[str, Any]]]:
    """Evaluate general suites; return the figures, and their comparison with the weights that the run started from."""
    task = replace(task, questions=Path(str(config.forgetting)), several=True)
    found = suites.evaluate(model, names, task)
    begun = start.again(config).to(model.logit_scale.device)
    return found, figures_file.compared(found, suites.evaluate(begun, names, task), figures_file.INIT, 0)


def _describe(config: Config, model: FGCLIP, loader: Loader, steps: int) -> None:
    """Print sizes, steps and the shapes of the first batch."""
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    micro_batches = next(loader.batches())
    batch = micro_batches[0]
    parts = {**batch._asdict(), **batch.texts._asdict()}
    print(f"parameters      {parameters:,}" + (f", {trained:,} of them trained" if trained < parameters else ""))
    print(f"steps           {steps:,} of {config.batch_size} images a process; {loader.steps_per_epoch:,} an epoch")
    print(f"weights+Adam    {(parameters * 4 + trained * 12) / 1e9:.2f} GB, and activations")
    shapes = {name: list(value.shape) for name, value in parts.items() if isinstance(value, torch.Tensor)}
    print("first batch     " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))
    if batch.texts.tree is not None:
        print(f"packed texts    {batch.texts.processed_tokens:,} of {len(batch.texts.token):,} tokens")
    if config.card is not None:
        from fgclip_fast import cost  # here, since the loop needs none of it

        card = cost.CARDS[config.card]
        print(cost.verdict(cost.fit(config, card, micro_batches), card, config))


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
