"""The command ``fgclip train``: from a config to a trained and evaluated model.

Without an argument it trains a tiny model on the embedded data set, on a CPU, in minutes, and evaluates it.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fgclip_fast import command, command_line, figures_file, figures_table, preflight, suites
from fgclip_fast.config import Config
from fgclip_fast.data.fingerprint import fingerprints
from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.evaluation.share import Stopped
from fgclip_fast.files.whole_file import write_json
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.ops.contrastive_loss import agree_batch_size
from fgclip_fast.run.folder import Lock, make_folder, place
from fgclip_fast.run.parts import Parts, make_parts
from fgclip_fast.run.state import State, machine_of, order_of, settings_of
from fgclip_fast.run.trainer import Trainer
from fgclip_fast.suites import Task
from fgclip_fast.training import checkpoint, distributed, lora, optim, out_of_memory, start, trackers
from fgclip_fast.training.average import Average
from fgclip_fast.training.best import Best
from fgclip_fast.training.interruption import Interruption
from fgclip_fast.training.trackers import Trackers

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
    with Lock() as lock:
        return _train(config, lock)


def _train(config: Config, lock: Lock) -> Run:
    lora.check(config.lora)
    trackers.check(config)
    processes = distributed.start(preflight.device(config.device))
    config, saved = place(config, processes, lock)
    general = suites.general(Path(config.forgetting)) if config.forgetting else []
    parts = make_parts(config, processes, saved)
    if config.dry_run:
        from fgclip_fast.run import dry_run  # here, since a run needs none of it

        with out_of_memory.explained(parts.config.images_per_pass):
            dry_run.describe(parts)
        return Run(parts.run, parts.model, parts.config, {})
    data = distributed.of_first(processes, partial(fingerprints, parts.shards))
    state = _state(parts, data["train"])
    done = state.restore(saved)
    best = Best(parts.run, config.keep_best, config.patience, done, writes=processes.first)
    make_folder(parts.run, parts.config, processes, lock, parts.steps, done, data)
    agree_batch_size(config.batch_size, processes.group, processes.device)
    with trackers.opened(parts.run, parts.config, done, processes.first) as tracking:
        with distributed.explained(processes), Interruption() as interruption:
            trainer = Trainer(parts, state, best, done, interruption, tracking)
            trainer.run()
            figures, evaluated = trainer.figures, False
            if trainer.step == trainer.steps:
                try:
                    figures, evaluated = _evaluated(parts, trainer, best, general), True
                except Stopped:
                    log.info("interrupted: %s is trained and saved; `fgclip evaluate %s` measures it",
                             *[parts.run] * 2)  # fmt: skip
            # Here, since the others wait for the last save of the first, and a signal must not end them meanwhile.
            distributed.stop(processes)
        state.average.swap()
        lora.merge(parts.model)
        if evaluated and tracking:
            _tell(tracking, parts, trainer.step, figures)
    log.info("%s: %d of %d steps done", parts.run, trainer.step, trainer.steps)
    return Run(parts.run, parts.model, trainer.state.config, figures)


def _state(parts: Parts, train: Mapping[str, Any]) -> State:
    """The state of a run at its start; ``train`` is the fingerprint of its training shards."""
    config, model, processes = parts.config, parts.model, parts.processes
    return State(
        model=model,
        optimizer=optim.adamw(model, config.optim),
        average=Average(model, config.optim.average),
        loader=parts.loader,
        order=order_of(replace(config, data=parts.source.data), parts.loader, processes, train),
        settings=settings_of(config, parts.steps),
        machine=machine_of(config, processes),
        config=config,
    )


def _evaluated(parts: Parts, trainer: Trainer, best: Best, general: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Evaluate the trained model, show and write its figures, and return them by name."""
    model, first, run, state = parts.model, parts.processes.first, parts.run, trainer.state
    step, task = trainer.step, trainer.task
    with state.average.in_model():
        found = suites.evaluate(model, suites.of_run(parts.source), task)
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
        figures_file.save_outcomes(run, found, parts.source, step)
        best.show()
    return figures


def _tell(tracking: Trackers, parts: Parts, step: int, figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Send the figures of the end, and those of the weights that the run started from, to the trackers."""
    from fgclip_fast import report  # here, since a run without trackers needs none of it

    before = report.before(parts.run, parts.model.device)
    for name, values in figures.items():
        tracking.write(step, f"evaluation/{name}", values)
        started = values["against"]["figures"] if "against" in values else before.get(name, {})
        tracking.write(step, f"before/{name}", started)


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
