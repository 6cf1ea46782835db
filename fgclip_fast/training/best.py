"""The best checkpoint of a run by a figure of its validations, and when to stop for want of a better one."""

import copy
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fgclip_fast.files.whole_file import write_json
from fgclip_fast.files.whole_folder import remove_folder
from fgclip_fast.training import checkpoint

log = logging.getLogger("fgclip_fast")


class Best:
    """Follows the best value of one figure; it lies in ``RUN/best``, which has the layout of a run, to be loaded so.

    Args:
        run: folder of the run.
        metric: name of the figure; lower is better for a loss, higher for the others. None follows nothing.
        patience: number of validations without a better value to stop after; 0: never.
        done: steps done before; what happened after them is forgotten, since the run will come there again.
        writes: False for a process that only decides.
    """

    def __init__(self, run: Path, metric: str | None, patience: int, done: int = 0, *, writes: bool = True) -> None:
        self.path = run / "best"
        self._metric, self._patience, self._writes = metric, patience, writes
        self._record: dict[str, Any] = {}
        self._told = False
        file = self.path / "best.json"
        if metric is not None and file.is_file():
            found = json.loads(file.read_text())
            if found["metric"] == metric and found["step"] <= done:
                self._record = {**found, "worse": [step for step in found["worse"] if step <= done]}

    def improved(self, figures: Mapping[str, Any], step: int) -> bool:
        """Compare the figures of the validation after ``step``; True asks for a checkpoint in :attr:`path`."""
        if self._metric is None:
            return False
        value = figures.get(self._metric)
        if value is None:
            if not self._told:
                log.warning("keep_best: the validation has no %s, so no checkpoint is kept for it", self._metric)
            self._told = True
            return False
        sign = -1 if self._metric.startswith("loss_") else 1
        if self._record and sign * value <= sign * self._record["value"]:
            self._record["worse"].append(step)
            return False
        self._record = {"metric": self._metric, "value": value, "step": step, "worse": []}
        return True

    def note(self) -> Callable[[], None]:
        """A job that writes the record as it is now, to be run when its checkpoint is saved, and removes older ones."""
        record = copy.deepcopy(self._record)

        def job() -> None:
            if not self._writes or not record:
                return
            write_json(self.path / "best.json", record)
            for old in checkpoint.every(self.path):
                if checkpoint.step_of(old) != record["step"]:
                    remove_folder(old)

        return job

    def knows(self, step: int) -> bool:
        """True if the validation after ``step`` was compared, or nothing is followed."""
        return self._metric is None or step in (self._record.get("step"), *self._record.get("worse", ()))

    def exhausted(self) -> bool:
        """True if ``patience`` validations brought nothing better."""
        return bool(self._patience) and len(self._record.get("worse", [])) >= self._patience

    def show(self) -> None:
        """Say in the log which step was best, and where it lies."""
        if self._record:
            log.info(
                "best %s %.4f after step %d: %s", *(self._record[k] for k in ("metric", "value", "step")), self.path
            )
