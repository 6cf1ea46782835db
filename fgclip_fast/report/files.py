"""What a run has left in its folder, as one value."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgclip_fast import command_line
from fgclip_fast.config import Config
from fgclip_fast.evaluate import FIGURES
from fgclip_fast.training import checkpoint
from fgclip_fast.training.monitor import LOG
from fgclip_fast.training.provenance import PROVENANCE


@dataclass(frozen=True)
class RunFiles:
    """A run as its files tell it; what was not written is empty.

    Attributes:
        path: its folder.
        config: as it was resolved.
        train, validation, times: lines of the log of each kind, in order.
        records: cause → count of bad, dropped and filled records.
        figures: suite → figures of the last evaluation.
        about: command, versions, steps and data fingerprints.
        weights: the newest checkpoint, or None.
    """

    path: Path
    config: Config
    train: list[dict[str, Any]] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)
    times: list[dict[str, Any]] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None

    @property
    def name(self) -> str:
        """The folder's name; of ``runs/last``, that of the run it points at."""
        return self.path.resolve().name

    @property
    def step(self) -> int:
        """Steps that were done."""
        return self.train[-1]["step"] if self.train else 0

    @property
    def steps(self) -> int | None:
        """Steps that were wanted, where that is known."""
        return self.about.get("steps") or self.config.steps

    @property
    def finished(self) -> bool:
        """Whether all steps were done; where their number is not known, whether the end was evaluated."""
        return self.step >= self.steps if self.steps else bool(self.figures)

    @property
    def seconds(self) -> float:
        """Time spent in steps; validation and checkpoints are not counted."""
        images = self.config.batch_size * self.about.get("processes", 1)
        return sum(line.get("seconds") or images / line["images_per_s"] for line in self.train)


def read(path: Path) -> RunFiles:
    """Reads a run's folder.

    Raises:
        FileNotFoundError: it is not there, or no run.
        ValueError: its config is not one of this version.
    """
    if not (path / "config.yaml").is_file():
        raise FileNotFoundError(f"report: {path} is no run: it holds no config.yaml")
    lines = _lines(path / LOG)
    counts = [line for line in lines if line["kind"] == "records"]
    return RunFiles(
        path=path,
        config=command_line.load(path / "config.yaml"),
        train=[line for line in lines if line["kind"] == "train"],
        validation=[line for line in lines if line["kind"] == "validation"],
        times=[line for line in lines if line["kind"] == "time"],
        records={k: v for k, v in counts[-1].items() if k not in ("step", "kind")} if counts else {},
        figures=_json(path / FIGURES),
        about=_json(path / PROVENANCE),
        weights=checkpoint.newest(path),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; one that a kill cut short is left out."""
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and "kind" in value and "step" in value:
            found.append(value)
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
