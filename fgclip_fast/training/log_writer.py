"""Write the log of a run in a thread of its own: ``log.jsonl``, TensorBoard, W&B and what people are shown."""

import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from fgclip_fast.progress import Progress
from fgclip_fast.training.wandb_run import WandbRun
from fgclip_fast.whole_file import finite, write_whole

LOG = "log.jsonl"


class LogWriter:
    """Writes lines in the order of the calls, each while the caller goes on; the next call waits until it is written.

    Args:
        run: folder of the run.
        steps: number of steps of the whole run.
        done: steps done before; the log is truncated after them, so that a resumed run has one history.
        quiet: show no progress.
        wandb: the run at W&B, if there is one.
    """

    def __init__(self, run: Path, steps: int, done: int, *, quiet: bool, wandb: WandbRun | None = None) -> None:
        truncate_log(run / LOG, done)
        self._path = run / LOG
        self._file = self._path.open("a", buffering=1)
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=done + 1)
        self._wandb = wandb
        self._progress = Progress(steps, done, quiet=quiet)
        self._thread = ThreadPoolExecutor(1, "log")
        self._last: Future[None] | None = None

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Write the figures of a step; all go into the log, numbers also to TensorBoard and W&B.

        Raises:
            OSError: the line before could not be written.
        """
        self._wait()
        self._last = self._thread.submit(self._write, step, kind, dict(values))

    def close(self) -> None:
        """Wait for the last line and close the files.

        Raises:
            OSError: it could not be written.
        """
        try:
            self._wait()
        finally:
            self._thread.shutdown()
            self._progress.close()
            self._board.close()
            if self._wandb is not None:
                self._wandb.close()
            self._file.close()

    def _wait(self) -> None:
        last, self._last = self._last, None
        try:
            if last is not None:
                last.result()
        except OSError as error:
            raise OSError(f"{self._path}: the log of the run could not be written: {error}") from error

    def _write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        self._file.write(json.dumps(finite({"step": step, "kind": kind, **values}), allow_nan=False) + "\n")
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        for name, value in numbers.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)
        if self._wandb is not None:
            self._wandb.write(step, kind, numbers)
        if kind == "train":
            self._progress.update(step, _line(values))
        elif kind == "validation":
            shown = " ".join(f"{name} {value:.3f}" for name, value in values.items() if isinstance(value, float))
            self._progress.say(f"step {step}, validation: {shown}")


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


def _line(v: dict[str, float]) -> str:
    terms = f"loss {v['total']:.3f} = short {v['short']:.2f} long {v['long']:.2f} region {v['region']:.2f}"
    terms += f" hard {v['hard_negative']:.2f}"
    pace = f"{v['images_per_s']:.0f} images/s {v['tokens_per_s']:.0f} tokens/s data {v['waiting']:.0%}"
    return f"{terms} | lr {v['lr']:.1e} |g| {v['grad_norm']:.2f} | {pace} {v['memory_gb']:.1f} GB"
