"""The output folder of a stage: what is done in it stays, so that the same command continues after a stop.

Beside each shard lies ``NAME.parquet``, a row for each record and for each region or negative that was left out. The
folder ``_STAGE`` holds what continuation needs: the settings, what a first pass has found, and the outcome of each
shard, written after the shard itself.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from fgclip_fast.curate.units import Unit
from fgclip_fast.data.remote import state as state_of_shard
from fgclip_fast.locked_file import HeldError, locked
from fgclip_fast.whole_file import finite, partials, replacing, write_json

DONE, FAILED, DROPPED = "done", "failed", "dropped"
"""States of a record: written; left out, but another try may succeed; left out for good."""


class Row(NamedTuple):
    """What became of a record, or of one of its regions."""

    key: str
    region: int | None
    """Number of the region; None: the record itself."""
    status: str
    cause: str = ""
    detail: str = ""


class OutputFolder:
    """The output folder of a stage.

    Args:
        path: the folder.
        stage: name of the stage.
    """

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage = path, stage
        self.state = path / f"_{stage}"

    def claim(self, units: Sequence[Unit], settings: dict[str, Any], about: dict[str, Any], in_place: bool) -> None:
        """Note the settings in the folder, or check that those noted there are the same.

        Args:
            units: the input, in order.
            settings: what the output depends on.
            about: other settings, which may change.
            in_place: allow that the output replaces the input.

        Raises:
            ValueError: two units have one name, or the folder holds other shards or the output of other settings.
        """
        who = f"curate {self.stage}"
        names = [unit.name for unit in units]
        twice = [name for name, n in Counter(names).items() if n > 1]
        if twice:
            raise ValueError(f"{who}: shards must have different names, got {twice[0]} twice")
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{who}: --output must be a folder, got the file {self.path}")
        at = [self.holds(unit) for unit in units]
        if any(at) and not (in_place and all(at)):
            raise ValueError(f"{who}: --output must be another folder than that of the shards, got {self.path}")
        noted, wanted = self.state / "settings.json", json.loads(json.dumps({**settings, "shards": names}))
        kept = read_json(noted)
        if kept is None and not any(at) and any(self.path.glob("*.tar")):
            raise ValueError(f"{who}: --output must hold no shards, got {self.path}; choose another folder")
        if kept is not None and kept["settings"] != wanted:
            hint = f"delete its folder {self.state.name} to start anew" if any(at) else "choose another folder"
            differing = [name for name in wanted if kept["settings"].get(name) != wanted[name]]
            raise ValueError(
                f"{who}: {self.path} holds the output of other shards or settings ({', '.join(differing)}); {hint}"
            )
        self.state.mkdir(parents=True, exist_ok=True)
        write_json(noted, {"settings": wanted, "about": about})

    def holds(self, unit: Unit) -> bool:
        """True if a unit is a shard in this folder, which the output replaces."""
        return unit.path is not None and unit.path.parent.resolve() == self.path.resolve()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for this process, and delete what a killed one has begun.

        Raises:
            ValueError: another process works in it.
        """
        self.state.mkdir(parents=True, exist_ok=True)
        try:
            lock = locked(self.state / "lock")
        except HeldError:
            raise ValueError(f"curate {self.stage}: another process works in {self.path} now") from None
        with lock:
            for path in (*partials(self.path), *partials(self.state)):
                path.unlink()
            yield

    def is_done(self, unit: Unit, known: str, again: bool) -> bool:
        """True if a shard was written, and neither it nor its source nor what is known has changed since.

        Args:
            unit: its source.
            known: digest of what a first pass has found.
            again: count a shard that lacks failed records as not done.
        """
        outcome, written = self.outcome(unit.name), self.path / unit.name
        if outcome is None or not written.exists() or (again and _lacks_failed(outcome)):
            return False
        # A shard that replaces its source differs from it; by then the first pass cannot be made again either.
        same = self.holds(unit) or (outcome["source"] == unit.state() and outcome["known"] == known)
        return same and outcome["written"] == list(state_of_shard(written))

    def keep(
        self, unit: Unit, source: Any, known: str, rows: Sequence[Row], counts: Counter[str], seconds: float
    ) -> None:
        """Note that a shard is written: its table, then its outcome."""
        write_table((self.path / unit.name).with_suffix(".parquet"), rows)
        outcome = {
            "source": source, "written": list(state_of_shard(self.path / unit.name)), "known": known,
            "seconds": seconds, "counts": dict(sorted(counts.items())), "rows": rows,
        }  # fmt: skip
        write_json(self.state / f"{unit.name}.json", outcome, indent=None)

    def outcome(self, shard: str) -> dict[str, Any] | None:
        """The outcome of a shard; None if it is not finished."""
        outcome: dict[str, Any] | None = read_json(self.state / f"{shard}.json")
        return outcome

    def outcomes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The names and outcomes of the shards that are finished, in the order of the input."""
        for name in (self.settings() or {"shards": []})["shards"]:
            if (outcome := self.outcome(name)) is not None:
                yield name, outcome

    def settings(self) -> dict[str, Any] | None:
        """The settings that the output depends on; None: the stage has not begun."""
        kept = read_json(self.state / "settings.json")
        return None if kept is None else {**kept["about"], **kept["settings"]}

    def about(self) -> dict[str, Any]:
        """All settings of the last run."""
        kept = read_json(self.state / "settings.json")
        return {} if kept is None else kept["about"]

    def counts(self) -> Counter[str]:
        """The counts of all shards."""
        total: Counter[str] = Counter()
        for _, outcome in self.outcomes():
            total.update(outcome["counts"])
        return total


def digest(known: Any) -> str:
    """A digest of what a first pass has found."""
    return hashlib.blake2b(json.dumps(finite(known), sort_keys=True).encode(), digest_size=16).hexdigest()


def read_json(file: Path) -> Any:
    """What a JSON file holds; None if it does not exist."""
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return None


def rows_of(outcome: dict[str, Any]) -> Iterable[Row]:
    """The rows of an outcome."""
    return (Row(*row) for row in outcome["rows"])


def _lacks_failed(outcome: dict[str, Any]) -> bool:
    return any(row.status == FAILED for row in rows_of(outcome))


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows of a shard as parquet, if pyarrow is installed; equal rows give equal bytes."""
    if not has_tables():
        return
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.string()
    kinds = {"key": text, "region": pyarrow.int32(), "status": text, "cause": text, "detail": text}
    columns = list(zip(*rows, strict=True)) or [()] * len(kinds)
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, kinds.values(), strict=True)]
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(arrays, names=[*kinds]), temporary)


@lru_cache(maxsize=1)
def has_tables() -> bool:
    """True if pyarrow is installed."""
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None
