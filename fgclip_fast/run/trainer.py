"""The loop of a run: it takes steps, and between them validates and saves."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from fgclip_fast import figures_file, suites
from fgclip_fast.config import yaml_file
from fgclip_fast.evaluation.share import Share, Stopped
from fgclip_fast.inputs.batch import Batch
from fgclip_fast.run.parts import Parts
from fgclip_fast.run.state import State, machine_of
from fgclip_fast.suites import Task
from fgclip_fast.training import checkpoint, grad_cache, optim, out_of_memory
from fgclip_fast.training.best import Best
from fgclip_fast.training.distributed import StopFlag, of_first
from fgclip_fast.training.divergence import SkippedSteps
from fgclip_fast.training.host_copy import BatchCopy
from fgclip_fast.training.interruption import Interrupted, Interruption
from fgclip_fast.training.log_writer import LOG, has_line
from fgclip_fast.training.monitor import Monitor
from fgclip_fast.training.saver import Saver
from fgclip_fast.training.timing import Stopwatch
from fgclip_fast.training.trackers import Trackers

log = logging.getLogger("fgclip_fast")

# Steps before a word about a term that finds no negatives.
_LOOK = 20
# Records that an error names.
_NAMED = 16
# Seconds for which the last checkpoint is tried again; who sent a signal will not wait long.
_PATIENCE, _PATIENCE_INTERRUPTED = 600.0, 20.0


class Trainer:
    """Takes the steps of a run.

    Args:
        parts: of the run, whose folder exists.
        state: of the run, to be saved.
        best: keeps the best checkpoint.
        done: steps that were taken before.
        interruption: ends the run after a step.
        trackers: where figures go, too.

    Attributes:
        state: as given; its config changes where steps need smaller passes.
        step: steps done.
        steps: of the whole run; fewer than asked for once patience is spent.
        task: the data of an evaluation, and the processes that share it.
        figures: of the last validation.
    """

    def __init__(
        self, parts: Parts, state: State, best: Best, done: int, interruption: Interruption, trackers: Trackers
    ) -> None:
        config, processes = parts.config, parts.processes
        self.state, self.step, self.steps, self.figures = state, done, parts.steps, dict[str, dict[str, Any]]()
        self.task = Task(
            data=parts.source.data,
            loss=config.loss,
            share=Share(processes.group, stop=lambda: interruption.wanted),
        )
        self._parts, self._best, self._interruption = parts, best, interruption
        self._eval_every = parts.loader.steps_per_epoch if config.eval_every == "epoch" else config.eval_every
        self._gradient = grad_cache.of_run(parts.model, config, processes)
        self._to_device, self._stop = BatchCopy(processes.device), StopFlag(processes)
        self._batches = parts.loader.batches(after=done)
        self._began, self._groups, self._failed = done, 0, ""
        self._skips = SkippedSteps(config.max_skipped)
        self._saver = Saver(config.checkpoint_every, config.checkpoint_minutes)
        self._trackers = trackers
        self._monitor = Monitor(
            parts.run, parts.steps, done, processes=processes.world_size, writes=processes.first, trackers=trackers
        )
        self._watch = Stopwatch(parts.model, self._monitor.note, processes.device, done)

    def run(self) -> None:
        """Train until all steps are done, patience is spent, or a signal comes; then save.

        Raises:
            ValueError: too many steps in a row had no finite gradient, or a step does not fit the memory.
        """
        self.state.model.train()
        goes_on = self._validate_after_a_kill()
        while goes_on and self.step < self.steps and (arrived := self._next()) is not None:
            if not self._take(arrived):
                self._in_smaller_passes()
            elif not self._goes_on():
                break
        self._finish()

    def _next(self) -> list[Batch] | None:
        """The batch of the next step, in micro-batches; None after a signal."""
        self._watch.step_begins()
        waiting = self._interruption.waiting if self._parts.processes.group is None else nullcontext
        try:
            with waiting():
                return next(self._batches)
        except Interrupted:
            return None

    def _take(self, arrived: list[Batch]) -> bool:
        """Take a step; False if it does not fit the memory, and nothing has changed."""
        parts, config = self._parts, self.state.config
        # Counted before the batches move, since reading the lengths of padded texts would wait for a GPU.
        tokens = sum(batch.texts.processed_tokens for batch in arrived)
        self._look_for_negatives(arrived)
        # The step alone: what validates or saves has other causes to run out of memory.
        with out_of_memory.explained(config.images_per_pass):
            gradient = partial(self._gradient, self._to_device(arrived))
            self._monitor.waited(self._watch.data_arrived())
            alone = parts.processes.group is None
            losses = out_of_memory.tried(gradient, config.images_per_pass, again=alone)
            if losses is None:
                return False
            self._watch.gradients_done()
            lr = optim.set_lr(self.state.optimizer, config.optim, self.step, self.steps)
            norm, skipped = optim.update(parts.model, self.state.optimizer, config.optim)
            self._watch.step_ends()
        self.step += 1
        self.state.average.update(self.step)
        self._monitor.record(self.step, losses, norm, skipped, lr, config.batch_size, tokens)
        if self._skips.too_many(skipped):
            self._failed = f"{config.max_skipped} steps in a row without a finite gradient, up to step {self.step - 1}"
        return True

    def _in_smaller_passes(self) -> None:
        """Halve the passes of the steps to come, which keep their samples, and say so in the run's config."""
        parts, config = self._parts, self.state.config
        parts.model.zero_grad(set_to_none=True)
        config = replace(config, micro_batch_size=out_of_memory.smaller(config.images_per_pass))
        parts.loader.set_micro_batch_size(config.images_per_pass)
        yaml_file.save(config, parts.run / "config.yaml")
        self._trackers.set_config(self.step, {"micro_batch_size": config.micro_batch_size})
        log.warning("step %d is taken again, with the same gradient, in passes of %d images, and those that follow it "
                    "too", self.step + 1, config.images_per_pass)  # fmt: skip
        self.state = replace(self.state, config=config, machine=machine_of(config, parts.processes))
        self._batches.close()
        self._batches = parts.loader.batches(after=self.step)

    def _goes_on(self) -> bool:
        """Save and validate after a step where it is time; False if it was the last."""
        if self._failed or self._stop.agreed(self._interruption.wanted) or self.step == self.steps:
            return False
        if self._parts.processes.first and self._saver.due(self.step):
            if self._settle():
                self._saver.submit(self.state.job(self._parts.run, self.step, self.state.config.keep))
            else:
                self._saver.postpone()
        if self._eval_every and self.step % self._eval_every == 0:
            return self._validate()
        return True

    def _validate_after_a_kill(self) -> bool:
        """Validate if the run ended between a checkpoint and the end of the validation after it; as :meth:`_validate`.

        So a resumed run has the figures, and the best checkpoint, of one that was left alone.
        """
        began, run, best = self._began, self._parts.run, self._best
        if not began or began == self.steps or not self._eval_every or began % self._eval_every:
            return True
        noted, known = of_first(
            self._parts.processes, lambda: (has_line(run / LOG, began, "validation"), best.knows(began))
        )
        return (noted and known) or self._validate(noted=noted)

    def _validate(self, *, noted: bool = False) -> bool:
        """Validate, and keep the checkpoint if it is the best; False after a signal, or once patience is spent."""
        names = suites.during_training(self._parts.source)
        try:
            with self.state.average.in_model():
                self.figures = figures_file.values(suites.evaluate(self._parts.model, names, self.task))
        except Stopped:
            return False
        records = self.figures.get("records", {})
        if not noted:
            self._monitor.note(self.step, "validation", records)
        writes = self._parts.processes.first
        self._saver.submit(self.state.best_job(self._best, records, self.step, writes=writes))
        if self._best.exhausted():
            config = self.state.config
            log.info("patience: %d validations without a better %s", config.patience, config.keep_best)
            self.steps = self.step
            return False
        self._monitor.pause_clock()
        return True

    def _settle(self) -> bool:
        """Bring the log up to the step that is saved; False if the disk does not answer."""
        self._monitor.note(self.step, "records", dict(self._parts.loader.counts))
        return self._monitor.settle()

    def _finish(self) -> None:
        """Save the last step, and wait until all is written."""
        parts = self._parts
        patience = _PATIENCE if self.step == self.steps else _PATIENCE_INTERRUPTED
        if parts.processes.first and not self._failed and (self.step > self._began or not self._began):
            self._settle()
            self._saver.finish(self.state.job(parts.run, self.step, self.state.config.keep), patience)
        self._saver.wait(patience)
        self._monitor.close()
        self._stop.close()
        if self._failed:
            raise ValueError(f"{self._failed}; {self._way_back()}")

    def _way_back(self) -> str:
        """What to look at and where to go on after a run that went wrong."""
        saved, names = checkpoint.newest(self._parts.run), self._parts.loader.names(self.step - 1)
        records = "; ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        way = f"the newest checkpoint is {saved}; go on from one by --resume, with a lower --optim.lr" if saved else ""
        return f"{way or 'nothing was saved'}; records of the last step: {records}"

    def _look_for_negatives(self, arrived: Sequence[Batch]) -> None:
        """Tell of a hard-negative term that finds none in the first steps."""
        self._groups += sum(len(batch.hard_region) for batch in arrived)
        looked = self.step - self._began == _LOOK and self._parts.processes.first
        if looked and self._groups == 0 and self.state.config.loss.hard_negative > 0:
            log.warning(
                "the first %d steps hold no negatives, so the hard-negative term teaches nothing; make some by "
                "`fgclip curate negatives`, or pass --loss.hard-negative 0",
                _LOOK + 1,
            )
