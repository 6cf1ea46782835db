"""The changing state of a run: what a checkpoint holds, and what a resumed run may and may not change."""

import json
import logging
import platform
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fgclip_fast.config import Config, yaml_file
from fgclip_fast.data.loader import Loader
from fgclip_fast.data.shards import weighted
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.training import checkpoint, lora, optim
from fgclip_fast.training.average import Average
from fgclip_fast.training.best import Best
from fgclip_fast.training.distributed import Processes
from fgclip_fast.training.host_copy import snapshot
from fgclip_fast.training.provenance import PROVENANCE

log = logging.getLogger("fgclip_fast")

# Not settings of training: where a run lies, what it is told and shown, and what the order holds by its content.
_NO_SETTINGS = (
    "output",
    "resume",
    "wandb",
    "trackio",
    "init",
    "trust_file",
    "dry_run",
    "card",
    "data.train",
    "data.workers",
    "data.val",
)


@dataclass(frozen=True)
class State:
    """The changing state of a run, to be saved in a checkpoint and restored from one.

    Attributes:
        model: its weights are saved in the released layout, with adapters merged; of an averaged run, the average.
        optimizer: its moments are saved.
        average: of an averaged run, the trained weights are saved beside the model.
        loader: its counts of records are saved.
        order: what decides which samples come when; a resumed run must have the same.
        settings: those that a resumed run may change; a change is said.
        machine: what the last bits of a loss depend on; a change is said.
        config: of the run; saved too.
    """

    model: FGCLIP
    optimizer: torch.optim.Optimizer
    average: Average
    loader: Loader
    order: Mapping[str, Any]
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    config: Config

    def job(self, run: Path, step: int, keep: int | None) -> Callable[[], None]:
        """Copy the state as it is after ``step``, and return the job that writes it as a checkpoint.

        Args:
            run: folder of the run.
            step: steps done.
            keep: number of newest checkpoints that the job leaves; None: all.
        """
        with self.average.in_model() as trained:
            adapters = lora.parts(self.model)
            weights = lora.merged_state(self.model) if adapters else self.model.state_dict()
            optimizer = optim.state_by_name(self.optimizer)
            tensors = {"optimizer": optimizer, "trained": dict(trained)}
            copies = snapshot({"model": weights, "adapters": adapters, "state": tensors})
        values = {name: dict(getattr(self, name)) for name in ("order", "settings", "machine")}
        return partial(self._write, run, step, keep, copies, {**values, "counts": dict(self.loader.counts)})

    def best_job(self, best: Best, figures: Mapping[str, Any], step: int, *, writes: bool) -> Callable[[], None]:
        """The job that keeps a checkpoint in the folder of ``best``, if a validation after ``step`` is better."""
        better = best.improved(figures, step)
        save = self.job(best.path, step, keep=None) if writes and better else None
        note = best.note()

        def job() -> None:
            if save is not None:
                save()
            note()

        return job

    def restore(self, saved: Path | None) -> int:
        """Restore optimizer and counts from a checkpoint; the model's weights are loaded when it is built.

        Settings are those of the config; each that was another is said.

        Returns:
            Steps done; 0 without a checkpoint.

        Raises:
            ValueError: the order of samples is not that of the checkpoint, or the state does not fit the model.
        """
        if saved is None:
            return 0
        state = checkpoint.load_state(saved)
        _check_order(saved, state["order"], self.order)
        _tell_changes(state, self.settings, self.machine)
        if "settings" not in state:  # the first version numbered the optimizer's parameters
            state = {**state, "optimizer": optim.named(self.optimizer, state["optimizer"])}
        optim.load_state(self.optimizer, state["optimizer"])
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in state.get("trained", {}).items():
                parameters[name].copy_(value)
        self.loader.counts = Counter(state.get("counts", {}))
        log.info("resuming %s after step %d", saved, state["step"])
        return state["step"]

    def _write(
        self, run: Path, step: int, keep: int | None, copies: Mapping[str, Any], values: Mapping[str, Any]
    ) -> None:
        def save_model(folder: Path) -> None:
            self.model.save(folder, copies["model"])
            lora.write(folder.parent, copies["adapters"], self.config.lora)
            yaml_file.save(self.config, folder.parent / "config.yaml")

        if not run.parent.is_dir():
            raise FileNotFoundError(f"{run.parent} is not there")
        state = {**values, **copies["state"]}
        checkpoint.save(run, step, save_model, state, len(checkpoint.every(run)) + 1 if keep is None else keep)


def order_of(config: Config, loader: Loader, processes: Processes, train: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide which samples come when, by name.

    Args:
        config: of the run, with the patterns of its shards.
        loader: of the training set.
        processes: of the run.
        train: fingerprint of the training shards.
    """
    data = config.data
    weights = [[weight, len(paths)] for weight, paths in weighted(data.train)] if "@" in data.train else []
    return {
        "global batch": config.batch_size * processes.world_size,
        "seed": config.seed,
        "the content of data.train": dict(train),
        "weights of data.train": weights,
        "lanes": data.lanes,
        "window": data.window,
        "decoder": loader.decoder,
    }


def settings_of(config: Config, steps: int) -> dict[str, Any]:
    """The settings that take effect anew when a run is resumed, by name: all but those of the order."""
    order = ("seed", "batch_size", "data.lanes", "data.window", "data.decoder", "epochs", "steps")
    left_out = (*_NO_SETTINGS, *order, *_OF_THE_MACHINE)
    flat = _flat(json.loads(json.dumps(asdict(config))))
    return {name: value for name, value in flat.items() if name not in left_out} | {"steps": steps}


_OF_THE_MACHINE = ("micro_batch_size", "precision", "threads", "device", "model.packing", "model.attention")


def machine_of(config: Config, processes: Processes) -> dict[str, Any]:
    """What the last bits of a loss depend on beside the settings, by name."""
    flat = _flat(asdict(config))
    return {
        **{name: flat[name] for name in _OF_THE_MACHINE if name not in ("threads", "device")},
        "processes": processes.world_size,
        "threads": torch.get_num_threads(),
        "device": _device_name(processes.device),
        "torch": torch.__version__,
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested dicts, by names joined by points."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _check_order(saved: Path, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError for the first setting of the order that is not what it was."""
    if "data.train" in was:  # format 1 held the pattern; the fingerprint stood beside the checkpoints
        was = {name: value for name, value in was.items() if name != "data.train"}
        try:
            about = json.loads((saved.parents[1] / PROVENANCE).read_text(encoding="utf-8"))
            was["the content of data.train"] = about["data"]["train"]
        except (OSError, ValueError, LookupError, TypeError):
            log.warning("resume: %s does not tell the content of data.train; see that it is the same", saved)
    for name, before in was.items():
        if now[name] != before:
            raise ValueError(
                f"resume: {name} was {before} and is {now[name]} now; the run would not see the same samples"
            )


def _tell_changes(state: Mapping[str, Any], settings: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
    """Say which settings are others than in a checkpoint, and whether the last bits may be."""
    for name, was in state.get("settings", {}).items():
        if (now := settings.get(name, was)) != was:
            log.info("resume: %s was %s, is %s", name, was, now)
    others = [
        f"{name} was {was}, is {machine[name]}"
        for name, was in state.get("machine", {}).items()
        if machine.get(name, was) != was
    ]
    if others:
        log.info("resume: %s: the samples are the same, the last digits of the losses may not be", "; ".join(others))
