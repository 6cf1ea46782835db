"""A run's folder: which it is, what it goes on from, and what is written there before the first step."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch.distributed as dist

from fgclip_fast import config_file
from fgclip_fast.config import Config
from fgclip_fast.data.fingerprint import fingerprints
from fgclip_fast.training import checkpoint, provenance
from fgclip_fast.training.distributed import Processes

RUNS = Path("runs")


def place(config: Config, processes: Processes) -> tuple[Config, Path | None]:
    """Decides the run's folder and the checkpoint to go on from; the first process decides for all.

    Raises:
        ValueError: the folder is a file, or holds a run that was not asked for.
        FileNotFoundError: no run or checkpoint to resume.
    """
    chosen: list[Any] = [None, None]
    if processes.first:
        chosen = list(_find(config))
    if processes.group is not None:
        dist.broadcast_object_list(chosen, src=0, group=processes.group)
    output, saved = chosen
    return replace(config, output=str(output), resume=None), saved


def make(
    run: Path, config: Config, processes: Processes, steps: int, shards: Mapping[str, Sequence[Path] | str]
) -> None:
    """Makes the run's folder, writes its config and where it comes from, and points ``last`` at it."""
    if not processes.first:
        return
    data = fingerprints(shards)  # before the folder is made: a shard that is none should leave no run
    run.mkdir(parents=True, exist_ok=True)
    config_file.save(config, run / "config.yaml")
    told = {"steps": steps, "processes": processes.world_size, "device": str(processes.device)}
    provenance.write(run, **told, data=data)
    last = run.parent / "last"
    if last.is_symlink() or not last.exists():
        last.unlink(missing_ok=True)
        last.symlink_to(run.resolve().name)


def _find(config: Config) -> tuple[Path, Path | None]:
    fresh = Path(config.output) if config.output else RUNS / datetime.now().strftime("%Y%m%d-%H%M%S")
    if fresh.is_file():
        raise ValueError(f"output must be a folder, got the file {fresh}")
    if config.resume is None:
        if checkpoint.newest(fresh) is not None and not config.dry_run:
            raise ValueError(f"output: {fresh} holds a run; go on with it by --resume auto, or name another --output")
        return fresh, None
    if config.resume == "auto":
        output = Path(config.output) if config.output else (RUNS / "last").resolve()
        return (output, checkpoint.newest(output)) if output.exists() else (fresh, None)
    saved = checkpoint.newest(Path(config.resume))
    if saved is None:
        raise FileNotFoundError(f"resume: {config.resume} is no run and no checkpoint (no checkpoints/step-* in it)")
    return Path(config.output) if config.output else saved.parents[1], saved
