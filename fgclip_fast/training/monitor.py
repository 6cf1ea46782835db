"""The log of a run: progress, ``log.jsonl`` and TensorBoard.

Numbers of a step are read from the device one step later; by then they are there, so the host does not wait.
"""

import json
import logging
import resource
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from fgclip_fast.progress import Progress
from fgclip_fast.training.objective import Losses
from fgclip_fast.whole_file import write_whole

log = logging.getLogger("fgclip_fast")
LOG = "log.jsonl"


class Monitor:
    """Records the steps of a run; only the first process writes and shows progress.

    Args:
        run: folder of the run.
        steps: number of steps of the whole run.
        done: steps done before; the log is truncated after them, so that a resumed run has one history.
        processes: number of processes, each of which records as many images and about as many tokens.
        writes: False for a process that records nothing.
        quiet: show no progress.
    """

    def __init__(
        self, run: Path, steps: int, done: int = 0, *, processes: int = 1, writes: bool = True, quiet: bool = False
    ) -> None:
        self._writes, self._processes = writes, processes
        self._pending: tuple[int, Tensor, dict[str, float]] | None = None
        self._waited = self._images = self._tokens = 0.0
        self._since = time.perf_counter()
        if not writes:
            return
        truncate_log(run / LOG, done)
        self._file = (run / LOG).open("a", buffering=1)
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=done + 1)
        self._progress = Progress(steps, done, quiet=quiet)

    def waited(self, seconds: float) -> None:
        """Add seconds in which the loop waited for data."""
        self._waited += seconds

    def record(
        self, step: int, losses: Losses, norm: Tensor, skipped: Tensor, lr: float, images: int, tokens: int
    ) -> None:
        """Keep the figures of ``step`` (from 1), and write those of the step before.

        Args:
            step: steps done.
            losses: Tensor[] each, without a graph.
            norm: Tensor[], gradient norm before clipping.
            skipped: Tensor[], 1 if the gradient was not finite and the step changed nothing, else 0.
            lr: learning rate of the step.
            images: images of this process in the step.
            tokens: text tokens that went through the tower of this process in the step.
        """
        self._images += images * self._processes
        self._tokens += tokens * self._processes
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
        """Write figures that are not a training step's, such as those of a validation; people are shown these too."""
        if not self._writes:
            return
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if kind == "validation":
            shown = " ".join(f"{name} {value:.3f}" for name, value in values.items() if isinstance(value, float))
            self._progress.say(f"step {step}, validation: {shown}")

    def pause_clock(self) -> None:
        """Leave the time since the last step (a validation, a checkpoint) out of the rates."""
        self._since = time.perf_counter()

    def close(self) -> None:
        """Write the last step and close the files."""
        if self._writes:
            self._write()
            self._progress.close()
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
        self._progress.update(step, _line(values))


def truncate_log(path: Path, step: int) -> None:
    """Remove the lines of a log that come after ``step``, and a last line that a kill left incomplete."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue
    write_whole(path, "".join(kept))


def peak_memory() -> float:
    """Peak memory of this process in GB: of the GPU if one is used, else resident memory."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _line(v: dict[str, float]) -> str:
    terms = f"loss {v['total']:.3f} = short {v['short']:.2f} long {v['long']:.2f} region {v['region']:.2f}"
    terms += f" hard {v['hard_negative']:.2f}"
    pace = f"{v['images_per_s']:.0f} images/s {v['tokens_per_s']:.0f} tokens/s data {v['waiting']:.0%}"
    return f"{terms} | lr {v['lr']:.1e} |g| {v['grad_norm']:.2f} | {pace} {v['memory_gb']:.1f} GB"
