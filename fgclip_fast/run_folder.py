"""The folder of a run: which one it is, what the run goes on from, and what is written there."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fgclip_fast import config_file, preflight
from fgclip_fast.config import Config, Lora
from fgclip_fast.data.fingerprint import fingerprints
from fgclip_fast.data.loader import Loader
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.training import checkpoint, lora, optim, provenance
from fgclip_fast.training.average import Average
from fgclip_fast.training.best import Best
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
        model: its weights are saved in the released layout, with adapters merged; of an averaged run, the average.
        optimizer: its moments are saved.
        average: of an averaged run, the trained weights are saved beside the model.
        loader: its counts of records are saved.
        order: what decides which samples come when; a resumed run must have the same.
        settings: those of training that a resumed run may change; a change is said.
        lora: the adapters of the model.
    """

    model: FGCLIP
    optimizer: torch.optim.Optimizer
    average: Average
    loader: Loader
    order: Mapping[str, Any]
    settings: Mapping[str, Any]
    lora: Lora

    def save(self, run: Path, step: int, keep: int) -> None:
        """Write the checkpoint of ``step``, and remove the oldest beyond ``keep``."""
        with self.average.in_model() as trained:
            state = {
                "optimizer": optim.state_by_name(self.optimizer),
                "trained": dict(trained),
                "order": dict(self.order),
                "settings": dict(self.settings),
                "counts": dict(self.loader.counts),
            }
            checkpoint.save(run, step, partial(lora.save, self.model, config=self.lora), state, keep)

    def save_best(self, best: Best, figures: Mapping[str, Any], step: int, *, writes: bool) -> None:
        """Save a checkpoint in the folder of ``best`` if the figures of a validation after ``step`` are better."""
        better = best.improved(figures, step)
        if writes and better:
            self.save(best.path, step, keep=len(checkpoint.every(best.path)) + 1)
        best.note()

    def restore(self, saved: Path | None) -> int:
        """Restore optimizer and counts from a checkpoint; the model's weights are loaded when it is built.

        Rates, decays and what is held still are those of the config; each that was another is said.

        Returns:
            Steps done; 0 without a checkpoint.

        Raises:
            ValueError: the order of samples is not that of the checkpoint, or an older version wrote it.
        """
        if saved is None:
            return 0
        state = checkpoint.load_state(saved)
        for name, was in state["order"].items():
            if (now := self.order[name]) != was:
                raise ValueError(f"resume: {name} was {was} and is {now} now; the run would not see the same samples")
        if "settings" not in state:
            raise ValueError(f"resume: {saved} is of an older version; go on from its weights by --init {saved}")
        for name, now in self.settings.items():
            if (was := state["settings"].get(name)) != now:
                log.info("resume: %s was %s, is %s", name, was, now)
        optim.load_state(self.optimizer, state["optimizer"])
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in state["trained"].items():
                parameters[name].copy_(value)
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


def settings_of(config: Config) -> dict[str, Any]:
    """The settings of training that take effect anew when a run is resumed, by name."""
    return {**{f"optim.{name}": value for name, value in asdict(config.optim).items()}, "freeze": config.freeze}


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
