"""What a run tells while it goes: a progress line, ``log.jsonl`` and TensorBoard.

Every number is read one step late: by then the device has it, and nothing waits.
"""

import json
import logging
import os
import resource
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from fgclip_fast.training.objective import Losses

log = logging.getLogger("fgclip_fast")
LOG = "log.jsonl"


class Monitor:
    """Records steps of a run; only the first process writes and speaks.

    Args:
        run: folder of the run.
        steps: how many the run will have.
        done: how many were done before; the log is cut there, so that a resumed run has one history.
        writes: whether this process writes at all.
        quiet: no progress line.
    """

    def __init__(self, run: Path, steps: int, done: int = 0, *, writes: bool = True, quiet: bool = False) -> None:
        self._writes = writes
        self._pending: tuple[int, Tensor, dict[str, float]] | None = None
        self._waited = self._images = self._tokens = 0.0
        self._since = time.perf_counter()
        if not writes:
            return
        cut(run / LOG, done)
        self._file = (run / LOG).open("a", buffering=1)
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=done + 1)
        columns = (TextColumn("{task.completed}/{task.total}"), BarColumn(20), TextColumn("{task.description}"))
        self._progress = Progress(*columns, TimeRemainingColumn(), disable=quiet)
        self._task = self._progress.add_task("starting", total=steps, completed=done)
        self._progress.start()

    def waited(self, seconds: float) -> None:
        """Adds time in which the loop waited for data."""
        self._waited += seconds

    def record(
        self, step: int, losses: Losses, norm: Tensor, skipped: Tensor, lr: float, images: int, tokens: int
    ) -> None:
        """Keeps the figures of ``step`` (from 1) and writes those of the step before.

        Args:
            step: steps done.
            losses: Tensor[] each, without a graph.
            norm: Tensor[], gradient norm before clipping.
            skipped: Tensor[], 1 where the step was not finite and changed nothing.
            lr: learning rate of the step.
            images: images of the step, over all processes.
            tokens: text tokens of the step that went through the tower, likewise.
        """
        self._images, self._tokens = self._images + images, self._tokens + tokens
        if not self._writes:
            return
        self._write()
        now = time.perf_counter()
        span = max(now - self._since, 1e-9)
        rates = {
            "images_per_s": self._images / span,
            "tokens_per_s": self._tokens / span,
            "waiting": self._waited / span,
        }
        self._pending = step, torch.stack([*losses, norm, skipped]), {"lr": lr, **rates, "memory_gb": peak_memory()}
        self._images = self._tokens = self._waited = 0.0
        self._since = now

    def note(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Writes figures that are no training step: a validation, counts of bad records."""
        if not self._writes:
            return
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def pause_clock(self) -> None:
        """Leaves what came since the last step (a validation, a checkpoint) out of the rates."""
        self._since = time.perf_counter()

    def close(self) -> None:
        """Writes the last step and ends the progress line."""
        if self._writes:
            self._write()
            self._progress.stop()
            self._board.close()
            self._file.close()

    def _write(self) -> None:
        if self._pending is None:
            return
        step, tensors, values = self._pending
        self._pending = None
        names = (*Losses._fields, "grad_norm", "skipped")
        values = {**dict(zip(names, tensors.tolist(), strict=True)), **values}
        if values["skipped"]:
            log.warning("step %d: the gradient is not finite (loss %s); the step was skipped", step, values["total"])
        self._file.write(json.dumps({"step": step, "kind": "train", **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"train/{name}", value, step)
        self._progress.update(self._task, completed=step, description=_line(values))


def cut(path: Path, step: int) -> None:
    """Removes the lines of a log that come after ``step``; a last line cut short by a kill goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept))
    os.replace(partial, path)


def peak_memory() -> float:
    """Most memory that this process has held, GB (of the GPU where one is used)."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _line(v: dict[str, float]) -> str:
    terms = f"loss {v['total']:.3f} = short {v['short']:.2f} long {v['long']:.2f} region {v['region']:.2f}"
    terms += f" hard {v['hard_negative']:.2f}"
    pace = f"{v['images_per_s']:.0f} images/s {v['tokens_per_s']:.0f} tokens/s data {v['waiting']:.0%}"
    return f"{terms} | lr {v['lr']:.1e} |g| {v['grad_norm']:.2f} | {pace} {v['memory_gb']:.1f} GB"
