"""Write the log of a run in a thread of its own: ``log.jsonl``, TensorBoard, trackers and what people are shown."""

import atexit
import json
import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fgclip_fast.files.whole_file import finite, write_whole
from fgclip_fast.files.whole_folder import flush
from fgclip_fast.process.progress import Progress
from fgclip_fast.training.board import Board
from fgclip_fast.training.disk_thread import DiskThread
from fgclip_fast.training.trackers import Trackers

log = logging.getLogger("fgclip_fast")
LOG = "log.jsonl"


class LogWriter:
    """Writes lines in the order of the calls, each while the caller goes on; the next call waits until it is written.

    Lines that the disk refuses wait for the next one. A file system that does not answer is told once and waited for no
    longer; the lines wait in memory.

    Args:
        run: folder of the run.
        steps: number of steps of the whole run.
        done: steps done before; the log is truncated after them, so that a resumed run has one history.
        quiet: show no progress.
        trackers: where figures go, too; the caller closes them.
    """

    def __init__(self, run: Path, steps: int, done: int, *, quiet: bool, trackers: Trackers | None = None) -> None:
        truncate_log(run / LOG, done)
        self._path = run / LOG
        self._path.touch()
        self._unwritten: list[bytes] = []
        self._board = Board(run / "tensorboard", done)
        self._trackers = trackers or Trackers()
        self._progress = Progress(steps, done, quiet=quiet)
        self._disk = DiskThread(str(self._path))
        atexit.register(self._wait)  # so that a crash of the loop loses no line

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Write the figures of a step; all go into the log, numbers also to TensorBoard and trackers."""
        self._wait()
        values = dict(values)
        self._disk.submit(partial(self._write, step, kind, values))
        self._board.write(step, kind, _numbers(values))

    def sync(self) -> bool:
        """Wait until all lines are on the disk, where it takes any; False if it does not answer."""
        self._wait()
        self._disk.submit(self._flush)
        return self._wait()

    def close(self) -> None:
        """Wait for the last line and close the files.

        Raises:
            OSError: lines are left that could not be written.
        """
        try:
            if not self._wait():
                raise TimeoutError(f"{self._path}: the file system does not answer")
            if self._unwritten:
                self._append()
            if self._unwritten:
                raise OSError(f"{self._path}: the last {len(self._unwritten)} lines of the log could not be written")
        finally:
            atexit.unregister(self._wait)
            self._progress.close()
            if self._disk.has_ended():
                self._board.close()

    def _wait(self) -> bool:
        """Wait for the last call, as long as the file system answers; True if it has ended."""
        if not self._disk.has_ended():
            return False
        self._disk.wait()
        return True

    def _flush(self) -> None:
        if not self._unwritten and self._path.exists():  # a folder that went away is told by what writes there
            flush(self._path)

    def _write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        line = json.dumps(finite({"step": step, "kind": kind, **values}), allow_nan=False)
        self._unwritten.append(line.encode() + b"\n")
        self._append()
        self._trackers.write(step, kind, values)
        if kind == "train":
            self._progress.update(step, _line(values))
        elif kind == "validation":
            shown = " ".join(f"{name} {value:.3f}" for name, value in values.items() if isinstance(value, float))
            self._progress.say(f"step {step}, validation: {shown}")

    def _append(self) -> None:
        """Append the lines that wait, all or none; the file is opened anew, since its folder may have been replaced."""
        waited = len(self._unwritten) - 1
        try:
            _append_whole(self._path, b"".join(self._unwritten))
        except OSError as error:
            if not waited:
                log.error("%s: the log cannot be written (%s); its lines are kept and tried again", self._path, error)
            return
        self._unwritten.clear()
        if waited > 0:
            log.info("%s: the log can be written again; no line is lost", self._path)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def truncate_log(path: Path, step: int) -> None:
    """Remove the lines of a log that come after ``step``, and those that cannot be read, which are counted."""
    if not path.exists():
        return
    kept, bad = [], 0
    *lines, rest = path.read_bytes().split(b"\n")
    for number, line in enumerate([*lines, rest]):
        found = _step_of(line)
        bad += found is None and number < len(lines)  # a kill cuts the last line short
        if found is not None and found <= step:
            kept.append(line + b"\n")
    if bad:
        log.warning("%s: %d lines cannot be read and are left out", path, bad)
    write_whole(path, b"".join(kept))


def has_line(path: Path, step: int, kind: str) -> bool:
    """True if a log holds a line of this kind for ``step``."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return any(_step_of(line) == step and json.loads(line).get("kind") == kind for line in lines)


def _step_of(line: bytes) -> int | None:
    """The step of a line; None for one that is not ours."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    step = value.get("step") if isinstance(value, dict) else None
    return step if isinstance(step, int) else None


def _append_whole(path: Path, lines: bytes) -> None:
    """Append bytes to a file, or leave it as it was.

    A folder that was removed is made anew, but not the one above it: that may be a disk that went away for a while.
    """
    path.parent.mkdir(exist_ok=True)
    with path.open("ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            written = file.write(lines)
            if written != len(lines):
                raise OSError(f"{written} of {len(lines)} bytes were written")
        except OSError:
            file.truncate(size)
            raise


def _line(v: dict[str, float]) -> str:
    terms = f"loss {v['total']:.3f} = short {v['short']:.2f} long {v['long']:.2f} region {v['region']:.2f}"
    terms += f" hard {v['hard_negative']:.2f}"
    pace = f"{v['images_per_s']:.0f} images/s {v['tokens_per_s']:.0f} tokens/s data {v['waiting']:.0%}"
    return f"{terms} | lr {v['lr']:.1e} |g| {v['grad_norm']:.2f} | {pace} {v['memory_gb']:.1f} GB"
