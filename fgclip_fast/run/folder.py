"""The folder of a run: which one it is, what the run goes on from, and what is written there."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

from fgclip_fast import preflight
from fgclip_fast.config import Config, yaml_file
from fgclip_fast.files.locked_file import HeldError, locked
from fgclip_fast.files.whole_folder import tidy
from fgclip_fast.training import checkpoint, distributed, provenance
from fgclip_fast.training.distributed import Processes

log = logging.getLogger("fgclip_fast")
RUNS = Path("runs")


class Lock:
    """Holds a run's folder for this process, until it closes or the process ends, however it ends."""

    def __init__(self) -> None:
        self._file: IO[str] | None = None

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def take(self, run: Path) -> None:
        """Take the folder, which exists; take no second one.

        Raises:
            ValueError: another process holds it.
        """
        if self._file is not None:
            return
        try:
            self._file = locked(run / ".lock")
        except HeldError as error:
            raise ValueError(f"output: {run} is in use by {error}; end that, or name another --output") from None


def place(config: Config, processes: Processes, lock: Lock) -> tuple[Config, Path | None]:
    """Choose the folder, the precision and the checkpoint to resume; the first process chooses for all.

    A folder to go on in is locked, and cleared of what a kill has left half-written.

    Returns:
        The config with ``output`` and ``precision`` decided and ``resume`` taken away; and the checkpoint, None for a
        new run.

    Raises:
        ValueError: the folder is a file, is in use, or holds a run that ``resume`` does not ask for; or no checkpoint
            is sound.
        FileNotFoundError: the run or checkpoint to resume does not exist.
    """

    def choose() -> tuple[Path, Path | None, Literal["fp32", "bf16"]]:
        output = _output(config)
        if output.is_dir() and not config.dry_run:
            lock.take(output)
            for folder in (output / "checkpoints", output / "best" / "checkpoints"):
                tidy(folder)
        return output, _checkpoint(config, output), preflight.precision(config.precision, processes.device)

    output, saved, precision = distributed.of_first(processes, choose)
    return replace(config, output=str(output), precision=precision, resume=None), saved


def make_folder(
    run: Path, config: Config, processes: Processes, lock: Lock, steps: int, done: int, data: Mapping[str, Any]
) -> None:
    """Make the folder, write config and provenance into it, and let the link ``last`` point at it.

    Args:
        run: the folder.
        config: as it is saved.
        processes: only the first one writes.
        lock: takes the folder.
        steps: of the whole run.
        done: steps done; checkpoints of later ones are set aside.
        data: "train" and "val" → fingerprint of the shards.
    """

    def write() -> None:
        run.mkdir(parents=True, exist_ok=True)
        lock.take(run)
        checkpoint.set_aside(run, done)
        yaml_file.save(config, run / "config.yaml")
        facts = {"steps": steps, "processes": processes.world_size, "device": str(processes.device)}
        provenance.write(run, **facts, data=data)
        last = run.parent / "last"
        if last.is_symlink() or not last.exists():
            last.unlink(missing_ok=True)
            last.symlink_to(run.resolve().name)

    distributed.of_first(processes, write)


def _output(config: Config) -> Path:
    """The folder of the run: that of the config, or where the run to resume lies, or a new one."""
    if config.output:
        output = Path(config.output)
        if output.is_file():
            raise ValueError(f"output must be a folder, got the file {output}")
        return output
    fresh = RUNS / datetime.now().strftime("%Y%m%d-%H%M%S")
    if config.resume is None:
        return fresh
    if config.resume == "auto":
        last = (RUNS / "last").resolve()
        return last if last.exists() else fresh
    return _run_of(_existing(config.resume))


def _checkpoint(config: Config, output: Path) -> Path | None:
    """The checkpoint to go on from; None starts anew."""
    if config.resume is None:
        if checkpoint.newest(output) is not None and not config.dry_run:
            raise ValueError(f"output: {output} holds a run; go on with it by --resume auto, or name another --output")
        return None
    if config.resume == "auto":
        return checkpoint.newest_sound(output)
    _existing(config.resume)
    return checkpoint.newest_sound(Path(config.resume))


def _existing(resume: str) -> Path:
    """The newest checkpoint of what ``resume`` names."""
    found = checkpoint.newest(Path(resume))
    if found is None:
        raise FileNotFoundError(f"resume: {resume} is neither a run nor a checkpoint (it holds no checkpoints/step-*)")
    return found


def _run_of(saved: Path) -> Path:
    return saved.resolve().parents[1]
