"""The figures of a run's steps, read one step late.

The copy of a step's figures to the host is queued behind the step's own kernels, and read when the next step has been
queued: the host waits for the step before, so the GPU always has a step to compute.
"""

import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgclip_fast.training.divergence import Spikes
from fgclip_fast.training.host_copy import HostCopy
from fgclip_fast.training.log_writer import LogWriter
from fgclip_fast.training.objective import Losses
from fgclip_fast.training.trackers import Trackers

log = logging.getLogger("fgclip_fast")


class Monitor:
    """Records the steps of a run; only the first process writes and shows progress.

    Args:
        run: folder of the run.
        steps: number of steps of the whole run.
        done: steps done before; the log is truncated after them, so that a resumed run has one history.
        processes: number of processes, each of which records as many images and about as many tokens.
        writes: False for a process that records nothing.
        quiet: show no progress.
        trackers: where figures go, too; the caller closes them.
    """

    def __init__(
        self,
        run: Path,
        steps: int,
        done: int = 0,
        *,
        processes: int = 1,
        writes: bool = True,
        quiet: bool = False,
        trackers: Trackers | None = None,
    ) -> None:
        self._processes = processes
        self._spikes = Spikes()
        self._writer = LogWriter(run, steps, done, quiet=quiet, trackers=trackers) if writes else None
        self._pending: tuple[int, HostCopy, dict[str, float]] | None = None
        self._waited = self._images = self._tokens = 0.0
        self._since = time.perf_counter()

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
        if self._writer is None:
            return
        self._write_pending(self._writer)
        now = time.perf_counter()
        span = max(now - self._since, 1e-9)
        rates = {
            "images_per_s": self._images / span,
            "tokens_per_s": self._tokens / span,
            "waiting": self._waited / span,
        }
        figures = HostCopy(torch.stack([*losses, norm, skipped]))
        self._pending = step, figures, {"lr": lr, **rates, "memory_gb": peak_memory()}
        self._images = self._tokens = self._waited = 0.0
        self._since = now

    def note(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Write figures that are not a training step's, such as those of a validation; people are shown these too."""
        if self._writer is not None:
            self._writer.write(step, kind, values)

    def settle(self) -> bool:
        """Wait until the log holds all steps, before a checkpoint of the last; False if the disk does not answer."""
        if self._writer is None:
            return True
        self._write_pending(self._writer)
        return self._writer.sync()

    def pause_clock(self) -> None:
        """Leave the time since the last step (a validation, a checkpoint) out of the rates."""
        self._since = time.perf_counter()

    def close(self) -> None:
        """Write the last step and close the files."""
        if self._writer is not None:
            self._write_pending(self._writer)
            self._writer.close()

    def _write_pending(self, writer: LogWriter) -> None:
        if self._pending is None:
            return
        step, figures, values = self._pending
        self._pending = None
        names = (*Losses._fields, "grad_norm", "skipped")
        values = {**dict(zip(names, figures.read(), strict=True)), **values}
        if values["skipped"]:
            log.warning("step %d: the gradient is not finite (loss %s); the step was skipped", step, values["total"])
        elif (usual := self._spikes.above(values["total"])) is not None:
            log.warning("step %d: the loss is %.3f, after a median of %.3f", step, values["total"], usual)
            writer.write(step, "spike", {"loss": values["total"], "median": usual})
        writer.write(step, "train", values)


def peak_memory() -> float:
    """Peak memory of this process in GB: of the GPU if one is used, else resident memory."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
