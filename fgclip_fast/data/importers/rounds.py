"""One round of an import: look at records in parallel, decide for all of them, write shards in parallel."""

import csv
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from fgclip_fast.data.importers import box_unit
from fgclip_fast.data.importers.box_unit import BoxUnit, Evidence
from fgclip_fast.data.importers.look import Images, Looked, Refusal, Views, kept, look_at, replaced
from fgclip_fast.data.importers.picture import View
from fgclip_fast.data.importers.shard_file import Meaning, Report, read_report, report_of, write_shard
from fgclip_fast.data.importers.source import SPLITS, SourceRecord
from fgclip_fast.data.importers.split import REFUSED, divide
from fgclip_fast.data.importers.work_folder import REFUSED_FILE, WorkFolder
from fgclip_fast.data.processes import in_order
from fgclip_fast.files.whole_file import replacing
from fgclip_fast.process.progress import Progress

CHUNK = 256
"""Records that a worker looks at in one task."""
_LOGGED = 5  # lines of one cause
_NAMED = ("data import", " the same command continues,")  # for the error of a worker that was killed
_FRESH: dict[str, Any] = {
    "rounds": 0, "written": {}, "shards": {}, "dropped or filled": {}, "boxes": None, "orientation": None,
}  # fmt: skip

log = logging.getLogger(__name__)
Numbered = tuple[int, SourceRecord]


def layout() -> list[list[str]]:
    """The fields of all that an import keeps in files, to go on from."""
    kept = (Looked, Images, Views, Evidence, Refusal, Report, Meaning)
    return [list(kind._fields) for kind in kept] + [list(_FRESH)]


class Round:
    """The steps of a round, in the order :meth:`look`, :meth:`meaning`, :meth:`write`, :meth:`publish`.

    Args:
        work: the output folder; what is done in it already is not done again.
        read: gives all records of the source, in the same order each time.
        workers: processes.
    """

    def __init__(self, work: WorkFolder, read: Callable[[], Iterable[SourceRecord]], workers: int) -> None:
        self._work, self._read, self._workers = work, read, workers
        self._before = work.manifest or _FRESH
        self.refused: Counter[str] = Counter()
        """Refused records by cause."""
        self.parts: Counter[str] = Counter()
        """Regions dropped and texts filled by this round, by cause."""
        self.written: Counter[str] = Counter(dict.fromkeys(SPLITS[:2], 0))
        """Records written by this round to each split; test only where the source states it."""

    @property
    def anything_usable(self) -> bool:
        """False if there is no usable record, of this round or an earlier one."""
        return bool(self._looked.images.good.any())

    def look(self) -> None:
        """Look at the records: all in the first round, those refused so far in another."""
        total = sum(1 for _ in self._read())
        todo = self._todo(total)
        folder = self._work.folder(self._work.round, "looked")
        progress, done, logged = Progress(len(todo)), 0, _Logged()
        try:
            # In a chunk of its own for each 256 records of the round; a chunk that exists is not looked at again.
            chunks = _chunks(self._numbered(todo))
            tasks = ((chunk, folder / f"{i:06d}.npz") for i, chunk in enumerate(chunks))
            missing = (task for task in tasks if not task[1].exists())
            done = min(len(todo), CHUNK * sum(1 for _ in folder.glob("*.npz")))
            for refused in in_order(look_at, missing, self._workers, *_NAMED):
                logged.add(refused)
                done = min(len(todo), done + CHUNK)
                progress.update(done, f"records looked at, {sum(logged.counts.values())} refused")
        finally:
            progress.close()
            logged.close()
        results = (kept(sorted(self._work.folder(n, "looked").glob("*.npz"))) for n in range(self._work.round + 1))
        self._looked = reduce(replaced, results)
        self.refused = Counter(refusal.cause for refusal in self._looked.refused)

    def meaning(self, unit: BoxUnit | None, view: View | None) -> Meaning:
        """Decide what the boxes mean.

        Args:
            unit: as the user or the format states it.
            view: as the user states it.

        Raises:
            ValueError: the unit or the view cannot be told, or what is stated fits badly.
        """
        views, view = self._looked.views, view or self._before["orientation"]
        if views.upright or views.stored or views.unknown:
            log.info("turned images with boxes: by their stated sizes %d refer to the upright and %d to the stored"
                     " picture, %d do not tell", *views[:3])  # fmt: skip
        if views.unknown and view is None:
            some = f"1 image, {views.example}, has"
            if views.unknown > 1:
                some = f"{views.unknown} images, such as {views.example}, have"
            raise ValueError(
                f"data import: --orientation must say whether boxes refer to the upright or to the stored picture,"
                f" since {some} an EXIF rotation, and no annotated width and height tells; most tools show pictures"
                " upright while boxes are drawn: --orientation upright"
            )
        boxes, unit = self._looked.boxes.plus(self._looked.unknown[view == "stored"]), unit or self._before["boxes"]
        if boxes.boxes and unit is None:
            unit, reason = box_unit.detect(boxes)
            log.info("boxes: %s, detected: %s", unit, reason)
        elif boxes.boxes and unit is not None:
            log.info("boxes: %s; %s", unit, box_unit.check(boxes, unit))
        self._box_counts = boxes.shares() if boxes.boxes else None
        return Meaning(unit if boxes.boxes else None, view)

    def write(self, meaning: Meaning, val: float | None, shard_size: int) -> None:
        """Write the shards of this round."""
        earlier = np.load(self._sides(self._work.round - 1)) if self._work.round else None
        self._divided = divide(self._looked.images, val, earlier)
        side = self._divided.side.copy()
        if earlier is not None:
            side[earlier != REFUSED] = REFUSED  # written already
        self._meaning = meaning
        self._work.keep_decision([meaning, self._before["shards"]])
        with replacing(self._sides(self._work.round)) as temporary, temporary.open("wb") as file:
            np.save(file, self._divided.side)
        self._shards = Counter(self._before["shards"])
        self._dropped: list[Refusal] = []
        progress, done = Progress(int((side != REFUSED).sum())), 0
        try:
            # Shards that exist are read back, the others written; both in the order of their last record.
            for split, path, report in self._reports(side, meaning, shard_size):
                self.parts.update(report.causes)
                self.written[split] += report.records
                self._dropped += report.dropped
                done += report.records
                progress.update(done, f"records written, {path.name}")
        finally:
            progress.close()

    def publish(self, about: dict[str, Any]) -> None:
        """Put the shards, the list of what was left out and the counts of all rounds into the output folder."""
        looked, before = self._looked, self._before
        earlier = [line for line in _regions_of(self._work.output / REFUSED_FILE)] if before["rounds"] else []
        parts = Counter(before["dropped or filled"]) + self.parts
        names = [name for name in SPLITS if name in self.written or name in before["written"]]
        manifest = about | {
            "rounds": before["rounds"] + 1,
            "written": {name: self.written[name] + before["written"].get(name, 0) for name in names},
            "shards": dict(self._shards),
            "refused": dict(self.refused),
            "dropped or filled": dict(parts),
            "regions": looked.regions,
            "boxes": self._meaning.unit,
            "boxes evidence": self._box_counts,
            "orientation": self._meaning.view,
            "turned images": looked.views._asdict(),
            "equal images": self._divided.equal,
            "near-duplicate images": self._divided.near,
        }
        self._work.publish({*looked.refused, *self._dropped, *earlier}, manifest)
        if self._divided.equal or self._divided.near:
            log.info("duplicates: %d images equal and %d nearly equal to one before them; none crosses the split",
                     self._divided.equal, self._divided.near)  # fmt: skip

    def _sides(self, number: int) -> Path:
        return self._work.folder(number, "sides.npy")

    def _todo(self, total: int) -> np.ndarray:
        """Numbers of the records of this round."""
        if self._work.round == 0:
            return np.arange(total)
        return np.flatnonzero(np.load(self._sides(self._work.round - 1)) == REFUSED)

    def _numbered(self, todo: np.ndarray) -> Iterator[Numbered]:
        wanted = np.zeros(todo.max(initial=-1) + 1, bool)
        wanted[todo] = True
        return ((i, record) for i, record in enumerate(self._read()) if i < len(wanted) and wanted[i])

    def _reports(self, side: np.ndarray, meaning: Meaning, shard_size: int) -> Iterator[tuple[str, Path, Any]]:
        def tasks() -> Iterator[tuple[Path, list[Numbered]]]:
            buffers: list[list[Numbered]] = [[] for _ in SPLITS]
            for i, record in self._numbered(np.flatnonzero(side != REFUSED)):
                buffers[side[i]].append((i, record))
                if len(buffers[side[i]]) == shard_size:
                    yield self._next(SPLITS[side[i]]), buffers[side[i]]
                    buffers[side[i]] = []
            yield from ((self._next(SPLITS[k]), buffer) for k, buffer in enumerate(buffers) if buffer)

        arguments = ((path, records, meaning) for path, records in tasks())
        for path, report in in_order(_written, arguments, self._workers, *_NAMED):
            yield path.name.partition("-")[0], path, report

    def _next(self, split: str) -> Path:
        number = self._shards[split]
        self._shards[split] += 1
        return self._work.folder(self._work.round, "shards") / f"{split}-{number:05d}.tar"


def _written(path: Path, records: list[Numbered], meaning: Meaning) -> tuple[Path, Any]:
    """Write a shard unless it exists, here or in the output folder."""
    published = path.parents[3] / path.name
    if report_of(path).exists() and (path.exists() or published.exists()):
        return path, read_report(path)
    return path, write_shard(path, records, meaning)


def _chunks(records: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    chunk: list[Numbered] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _regions_of(file: Path) -> Iterator[Refusal]:
    """Lines of ``refused.csv`` about regions that earlier rounds dropped."""
    with file.open(newline="", encoding="utf-8") as lines:
        for number, part, key, name, line, cause, detail in list(csv.reader(lines))[1:]:
            if part == "region":
                yield Refusal(int(number), part, key, name, int(line), cause, detail)


class _Logged:
    """Names the first refused records of each cause in the log, and then counts them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, refused: Iterable[Refusal]) -> None:
        """Log some refused records."""
        for line in refused:
            self.counts[line.cause] += 1
            if self.counts[line.cause] <= _LOGGED:
                log.warning("%s, line %d: %s: %s; refused", line.file, line.line, line.cause, line.detail)

    def close(self) -> None:
        """Log how many more there were."""
        for cause, n in self.counts.items():
            if n > _LOGGED:
                log.warning("%s: %d more; refused.csv lists all", cause, n - _LOGGED)
