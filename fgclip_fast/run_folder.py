"""The folder of a run: which one it is, what the run goes on from, and what is written there."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fgclip_fast import config_file, preflight
from fgclip_fast.config import Config
from fgclip_fast.data.fingerprint import fingerprints
from fgclip_fast.data.loader import Loader
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.training import checkpoint, provenance
from fgclip_fast.training.distributed import Processes

log = logging.getLogger("fgclip_fast")
RUNS = Path("runs")


def place(config: Config, processes: Processes) -> tuple[Config, Path | None]:
    """Choose the folder, the precision and the checkpoint to resume; the first process chooses for all.

    Returns:
        The config with ``output`` and ``precision`` decided and ``resume`` taken away; and the checkpoint, None for a
        new run.

    Raises:
        ValueError: the folder is a file, or holds a run that ``resume`` does not ask for.
        FileNotFoundError: the run or checkpoint to resume does not exist.
    """
    chosen: list[Any] = [None, None, None]
    if processes.first:
        chosen = [*_choose(config), preflight.precision(config.precision, processes.device)]
    if processes.group is not None:
        dist.broadcast_object_list(chosen, src=0, group=processes.group)
    output, saved, precision = chosen
    return replace(config, output=str(output), precision=precision, resume=None), saved


def make(
    run: Path, config: Config, processes: Processes, steps: int, shards: Mapping[str, Sequence[Path] | str]
) -> None:
    """Make the folder, write config and provenance into it, and let the link ``last`` point at it.

    Args:
        run: the folder.
        config: as it is saved.
        processes: only the first one writes.
        steps: of the whole run.
        shards: "train" and "val" → the shards, for their fingerprints.
    """
    if not processes.first:
        return
    data = fingerprints(shards)  # first, so that a file that is not a tar fails before the folder exists
    run.mkdir(parents=True, exist_ok=True)
    config_file.save(config, run / "config.yaml")
    facts = {"steps": steps, "processes": processes.world_size, "device": str(processes.device)}
    provenance.write(run, **facts, data=data)
    last = run.parent / "last"
    if last.is_symlink() or not last.exists():
        last.unlink(missing_ok=True)
        last.symlink_to(run.resolve().name)


@dataclass(frozen=True)
class State:
    """The changing state of a run, to be saved in a checkpoint and restored from one.

    Attributes:
        model: its weights are saved in the released layout.
        optimizer: its moments are saved.
        loader: its counts of records are saved.
        order: what decides which samples come when; a resumed run must have the same.
    """

    model: FGCLIP
    optimizer: torch.optim.Optimizer
    loader: Loader
    order: Mapping[str, Any]

    def save(self, run: Path, step: int, keep: int) -> None:
        """Write the checkpoint of ``step``, and remove the oldest beyond ``keep``."""
        state = {
            "optimizer": self.optimizer.state_dict(),
            "order": dict(self.order),
            "counts": dict(self.loader.counts),
        }
        checkpoint.save(run, step, self.model.save, state, keep)

    def restore(self, saved: Path | None) -> int:
        """Restore optimizer and counts from a checkpoint; the model's weights are loaded when it is built.

        Returns:
            Steps done; 0 without a checkpoint.

        Raises:
            ValueError: the order of samples is not that of the checkpoint.
        """
        if saved is None:
            return 0
        state = checkpoint.load_state(saved)
        for name, was in state["order"].items():
            if (now := self.order[name]) != was:
                raise ValueError(f"resume: {name} was {was} and is {now} now; the run would not see the same samples")
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.counts = Counter(state["counts"])
        log.info("resuming %s after step %d", saved, state["step"])
        return state["step"]


def order_of(config: Config, loader: Loader, processes: Processes) -> dict[str, Any]:
    """The settings that decide which samples come when, by name."""
    data = config.data
    return {
        "global batch": config.batch_size * processes.world_size,
        "seed": config.seed,
        "data.train": data.train,
        "lanes": data.lanes,
        "window": data.window,
        "decoder": loader.decoder,
    }


def _choose(config: Config) -> tuple[Path, Path | None]:
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
        raise FileNotFoundError(
            f"resume: {config.resume} is neither a run nor a checkpoint (it holds no checkpoints/step-*)"
        )
    return Path(config.output) if config.output else saved.parents[1], saved
