"""The output folder of a stage: what is done in it stays, so that the same command continues after a stop.

Beside each shard lies ``NAME.parquet``, a row for each record and for each region or negative that was left out. The
folder ``_STAGE`` holds what continuation needs: the settings, what a first pass has found, and the outcome of each
shard, written after the shard itself.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from fgclip_fast.curate.places.answers import Answers
from fgclip_fast.curate.places.disk import Disk
from fgclip_fast.curate.places.place import Place, loaded
from fgclip_fast.curate.places.storage import Storage
from fgclip_fast.curate.units import Unit
from fgclip_fast.data.remote import State, is_url
from fgclip_fast.files.whole_file import finite, replacing

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
        output: its path, its URL in object storage, or itself.
        stage: name of the stage.
    """

    def __init__(self, output: Path | str | Place, stage: str) -> None:
        self.place, self.stage = place_of(output), stage
        self.state = f"_{stage}"
        """Name of the folder of what continuation needs."""

    def claim(self, units: Sequence[Unit], settings: dict[str, Any], about: dict[str, Any], in_place: bool) -> None:
        """Note the settings in the folder, or check that those noted there are the same.

        Args:
            units: the input, in order.
            settings: what the output depends on.
            about: other settings, which may change.
            in_place: allow that the output replaces the input.

        Raises:
            ValueError: two units have one name, or the folder holds other shards or the output of other settings.
            OSError: it cannot be read or written.
        """
        who = f"curate {self.stage}"
        names = [unit.name for unit in units]
        twice = [name for name, n in Counter(names).items() if n > 1]
        if twice:
            raise ValueError(f"{who}: shards must have different names, got {twice[0]} twice")
        if self.place.is_file():
            raise ValueError(f"{who}: --output must be a folder, got the file {self.place}")
        at = [self.holds(unit) for unit in units]
        if any(at) and not (in_place and all(at)):
            raise ValueError(f"{who}: --output must be another folder than that of the shards, got {self.place}")
        kept, wanted = self.kept("settings.json"), json.loads(json.dumps({**settings, "shards": names}))
        if kept is None and not any(at) and self.place.glob("*.tar"):
            raise ValueError(f"{who}: --output must hold no shards, got {self.place}; choose another folder")
        if kept is not None and kept["settings"] != wanted:
            hint = f"delete its folder {self.state} to start anew" if any(at) else "choose another folder"
            differing = [name for name in wanted if kept["settings"].get(name) != wanted[name]]
            raise ValueError(
                f"{who}: {self.place} holds the output of other shards or settings ({', '.join(differing)}); {hint}"
            )
        self.place.make(self.state)
        self.keep_json("settings.json", {"settings": wanted, "about": about})

    def holds(self, unit: Unit) -> bool:
        """True if a unit is a shard in this folder, which the output replaces."""
        return unit.path is not None and self.place.holds(unit.path)

    def alone(self) -> AbstractContextManager[None]:
        """Hold the folder for this process, and delete what a killed one has begun.

        Raises:
            ValueError: another process works in it.
        """
        return self.place.alone(self.state)

    def answers(self, again: bool, shared: bool = False) -> Answers:
        """The answers of models that are kept in it; ``again`` and ``shared`` as of :class:`Answers`."""
        return self.place.answers(self.state, again, shared)

    def rest(self, units: Sequence[Unit], known: str, again: bool) -> list[Unit]:
        """The units whose shards are still to be written, or anew, since they or what is known have changed.

        Args:
            units: the input.
            known: digest of what a first pass has found.
            again: also those whose shards lack failed records.
        """
        names = [unit.name for unit in units]
        found = zip(units, self._outcomes(names), self.place.states(names), strict=True)
        return [unit for unit, outcome, written in found if not self._is_done(unit, outcome, written, known, again)]

    def _is_done(
        self, unit: Unit, outcome: dict[str, Any] | None, written: State | None, known: str, again: bool
    ) -> bool:
        if outcome is None or written is None or (again and _lacks_failed(outcome)):
            return False
        # A shard that replaces its source differs from it; by then the first pass cannot be made again either.
        same = self.holds(unit) or (outcome["source"] == unit.state() and outcome["known"] == known)
        return same and outcome["written"] == list(written)

    def keep(
        self, unit: Unit, source: Any, known: str, rows: Sequence[Row], counts: Counter[str], seconds: float
    ) -> None:
        """Note that a shard is written: its table, then its outcome."""
        if has_tables():
            with self.place.writing(f"{Path(unit.name).stem}.parquet") as table:
                write_table(table, rows)
        (written,) = self.place.states([unit.name])
        outcome = {
            "source": source, "written": written, "known": known,
            "seconds": seconds, "counts": dict(sorted(counts.items())), "rows": rows,
        }  # fmt: skip
        self.keep_json(f"{unit.name}.json", outcome, indent=None)

    def kept(self, name: str) -> Any:
        """What a JSON file among what continuation needs holds; None if there is none."""
        return self.place.read_json(f"{self.state}/{name}")

    def all_kept(self, names: Iterable[str]) -> Iterator[Any]:
        """The same of many files."""
        return map(loaded, self.place.read_all(f"{self.state}/{name}" for name in names))

    def keep_json(self, name: str, values: Any, indent: int | None = 1) -> None:
        """Write such a file."""
        self.place.write_json(f"{self.state}/{name}", values, indent)

    def outcomes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The names and outcomes of the shards that are finished, in the order of the input."""
        names = (self.settings() or {"shards": []})["shards"]
        for name, outcome in zip(names, self._outcomes(names), strict=True):
            if outcome is not None:
                yield name, outcome

    def _outcomes(self, names: Sequence[str]) -> Iterator[dict[str, Any] | None]:
        return self.all_kept(f"{name}.json" for name in names)

    def settings(self) -> dict[str, Any] | None:
        """The settings that the output depends on; None: the stage has not begun."""
        kept = self.kept("settings.json")
        return None if kept is None else {**kept["about"], **kept["settings"]}

    def about(self) -> dict[str, Any]:
        """All settings of the last run."""
        about: dict[str, Any] = (self.kept("settings.json") or {"about": {}})["about"]
        return about

    def counts(self) -> Counter[str]:
        """The counts of all shards."""
        total: Counter[str] = Counter()
        for _, outcome in self.outcomes():
            total.update(outcome["counts"])
        return total


def place_of(output: Path | str | Place) -> Place:
    """The folder of a path, or of a URL such as ``s3://bucket/mine``."""
    if isinstance(output, Place):
        return output
    return Storage(output.rstrip("/")) if isinstance(output, str) and is_url(output) else Disk(Path(output))


def digest(known: Any) -> str:
    """A digest of what a first pass has found."""
    return hashlib.blake2b(json.dumps(finite(known), sort_keys=True).encode(), digest_size=16).hexdigest()


def rows_of(outcome: dict[str, Any]) -> Iterable[Row]:
    """The rows of an outcome."""
    return (Row(*row) for row in outcome["rows"])


def _lacks_failed(outcome: dict[str, Any]) -> bool:
    return any(row.status == FAILED for row in rows_of(outcome))


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows of a shard as parquet; equal rows give equal bytes."""
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
