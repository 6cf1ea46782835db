"""Reads the files of a run's folder into one value."""

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fgclip_fast.config import Config, yaml_file
from fgclip_fast.figures_file import FIGURES, INIT
from fgclip_fast.files.whole_file import finite
from fgclip_fast.scenes.locate import Source, resolve
from fgclip_fast.training import checkpoint
from fgclip_fast.training.log_writer import LOG
from fgclip_fast.training.provenance import PROVENANCE


@dataclass(frozen=True)
class RunFiles:
    """The contents of a run's folder; what a missing file would hold is empty.

    Attributes:
        path: the folder.
        config: the resolved config.
        train, validation, times: lines of the log, by kind, in order.
        records: cause → number of bad, dropped and filled records.
        figures: suite → figures of the last evaluation.
        kept: name of other data → comparison of the run with its start, as ``evaluate --against init`` wrote it.
        provenance: commands, versions, steps, and fingerprints of the data.
        weights: the newest checkpoint; None if none was saved.
    """

    path: Path
    config: Config
    train: list[dict[str, Any]] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)
    times: list[dict[str, Any]] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None

    @property
    def name(self) -> str:
        """Name of the folder; ``runs/last`` gives the name of the run that it links to."""
        return self.path.resolve().name

    @property
    def step(self) -> int:
        """Number of steps done."""
        return self.train[-1]["step"] if self.train else 0

    @property
    def steps(self) -> int | None:
        """Number of steps planned; None if unknown."""
        return self.provenance.get("steps") or self.config.steps

    @property
    def finished(self) -> bool:
        """True if all planned steps are done; if their number is unknown, true if the run was evaluated."""
        return self.step >= self.steps if self.steps else bool(self.figures)

    @cached_property
    def source(self) -> Source:
        """The validation data as files; the embedded set is written if it is missing."""
        return resolve(replace(self.config.data, train=""))

    @property
    def global_batch_size(self) -> int:
        """Images a step, over all processes."""
        return self.config.batch_size * self.provenance.get("processes", 1)

    @property
    def seconds(self) -> float:
        """Seconds spent in steps, without validation and checkpoints."""
        return sum(line.get("seconds") or self.global_batch_size / line["images_per_s"] for line in self.train)


def read(path: Path) -> RunFiles:
    """Read a run's folder.

    Raises:
        FileNotFoundError: the folder does not exist or is not a run.
        ValueError: the config is not of this version.
    """
    if not (path / "config.yaml").is_file():
        raise FileNotFoundError(f"report: {path} is not a run: it holds no config.yaml")
    lines, newest = _log_lines(path / LOG), checkpoint.newest(path)
    counts = [line for line in lines if line["kind"] == "records"]
    return RunFiles(
        path=path,
        config=yaml_file.load(path / "config.yaml"),
        train=[line for line in lines if line["kind"] == "train"],
        validation=[line for line in lines if line["kind"] == "validation"],
        times=[line for line in lines if line["kind"] == "time"],
        records={k: v for k, v in counts[-1].items() if k not in ("step", "kind")} if counts else {},
        figures=read_json(path / FIGURES),
        kept=_kept(path, checkpoint.step_of(newest) if newest else None),
        provenance=read_json(path / PROVENANCE),
        weights=newest,
    )


def _kept(path: Path, newest: int | None) -> dict[str, Any]:
    """Comparisons with the start on other data than the run's own: of several of the same data the last.

    The name tells the step of those that are of older weights than the newest.
    """
    found: dict[str, Any] = {}
    for file in [*sorted((path / "evaluations").glob("*.json")), path / FIGURES]:
        for name, figures in read_json(file).items():
            against = figures.get("against") if isinstance(figures, dict) else None
            own = name.startswith(("unseen/", "seen/")) or (name == "records" and file.name == FIGURES)
            if against and against.get("weights") == INIT and not own:
                of = figures.get("of", {})
                data = f" of {of.get('data', {}).get('files')}" if name == "records" else ""
                part = f", the first {of['limit']}" if of.get("limit") else ""
                older = f", after step {of['step']}" if of.get("step") not in (None, newest) else ""
                found[f"{name}{data}{part}{older}"] = against
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, with NaN as None; a file that is missing, torn or of another type gives ``{}``."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return finite(value) if isinstance(value, dict) else {}


def _log_lines(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines of a log; a line that a kill cut short is left out."""
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and "kind" in value and "step" in value:
            found.append(value)
    return found
