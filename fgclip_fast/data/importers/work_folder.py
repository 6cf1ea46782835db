"""The files of an import in its output folder: what is done stays, so that the same command continues after a stop.

``.import/plan.json`` holds the arguments and the files of the source. Each round, the first import and each
``--retry-failed``, has a folder ``.import/round-N`` with the results of looking (``looked/``) and the shards until all
are written (``shards/``). Then the shards move to the output folder, and ``import.json`` marks it as complete.
"""

import csv
import io
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fgclip_fast.data import remote
from fgclip_fast.data.importers.look import Refusal
from fgclip_fast.data.importers.source import Source
from fgclip_fast.files.locked_file import HeldError, locked
from fgclip_fast.files.whole_file import partials, write_json, write_whole

MANIFEST, PLAN = "import.json", ".import/plan.json"
REFUSED_FILE = "refused.csv"
LAYOUT = "layout"
"""The part of a plan that says what is kept; another version may keep other things."""


class WorkFolder:
    """The state of an import.

    Args:
        output: the folder for shards.
        plan: arguments and source, as JSON; an import is continued only if they are the same.
        retry: begin another round for the refused records of a complete import.

    Raises:
        ValueError: the folder holds shards of something else, an import with another plan, or, without ``retry``, a
            complete one.
    """

    def __init__(self, output: Path, plan: dict[str, Any], retry: bool) -> None:
        self.output, self._state = output, output / ".import"
        self.manifest = _read(output / MANIFEST)
        kept = _read(output / PLAN)
        goes_on = kept is not None and (retry or self.manifest is None)
        if goes_on and kept.get(LAYOUT) != json.loads(json.dumps(plan[LAYOUT])):
            raise ValueError(
                f"data import: {output} holds an import that another version of this package began, and this one cannot"
                " go on from its files; choose another --output, or delete that folder and import again"
            )
        if self.manifest is not None and not retry:
            raise ValueError(
                f"data import: --output must not hold a complete import, got {output}; choose another folder,"
                " or pass --retry-failed to try its refused records again"
            )
        if kept is None and (retry or self.manifest is not None):
            raise ValueError(f"data import: --retry-failed needs a complete import in --output, got {output}")
        if kept is None and any(output.glob("*.tar")):
            raise ValueError(f"data import: --output must hold no shards, got {output}; choose another folder")
        differing = [name for name in plan if kept is not None and kept.get(name) != plan[name]]
        if differing:
            raise ValueError(
                f"data import: {output} holds an import that began with another {' and '.join(differing)};"
                " repeat that command, or choose another --output"
            )
        self.round = 0 if self.manifest is None else self.manifest["rounds"]
        if retry and self.round == 0:
            raise ValueError(f"data import: --retry-failed needs a complete import in --output, got {output}")
        self.folder(self.round, "looked").mkdir(parents=True, exist_ok=True)
        if kept is None:
            write_json(output / PLAN, plan)

    def folder(self, number: int, name: str) -> Path:
        """A folder of a round."""
        return self._state / f"round-{number}" / name

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            ValueError: another process imports into it.
        """
        try:
            lock = locked(self._state / "lock")
        except HeldError:
            raise ValueError(f"data import: another process imports into {self.output} now") from None
        with lock:
            for path in partials(self._state, below=True):
                path.unlink()
            yield

    def keep_decision(self, decision: Any) -> None:
        """Keep what shards are made by; shards that were made by another decision are deleted."""
        file = self.folder(self.round, "decision.json")
        if _read(file) != json.loads(json.dumps(decision)):
            shutil.rmtree(self.folder(self.round, "shards"), ignore_errors=True)
            write_json(file, decision)
        self.folder(self.round, "shards").mkdir(exist_ok=True)

    def publish(self, refused: Iterable[Refusal], manifest: dict[str, Any]) -> None:
        """Move the shards to the output folder and mark it as complete."""
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(Refusal._fields)
        writer.writerows(sorted(refused))
        write_whole(self.output / REFUSED_FILE, lines.getvalue().encode("utf-8", "backslashreplace"))
        for shard in sorted(self.folder(self.round, "shards").glob("*.tar")):
            shard.rename(self.output / shard.name)
        write_json(self.output / MANIFEST, manifest)

    def discard(self) -> None:
        """Delete the state of an import that came to nothing, and the output folder if that leaves it empty."""
        shutil.rmtree(self._state)
        if not any(self.output.iterdir()):
            self.output.rmdir()


def files_of(source: Source) -> list[list[Any]]:
    """Name, size and time of change of the files of a source, by which a change is noticed."""
    return [[remote.address(file), *remote.state(file)] for file in source.files]


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
