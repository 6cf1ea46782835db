"""The stage *shards*: training and validation shards of what the other stages have made."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fgclip_fast.config.rules import Positive, ShareOrZero, check
from fgclip_fast.curate.folder import place_of
from fgclip_fast.curate.places.place import Place
from fgclip_fast.data.importers.importing import import_records
from fgclip_fast.data.importers.source import Source
from fgclip_fast.data.importers.work_folder import MANIFEST, PLAN, files_of


@dataclass(frozen=True, kw_only=True)
class Shards:
    """Divides records among ``train-00000.tar``, … and ``val-00000.tar``, …; those that no loader could use are left
    out, and near-duplicates stay on one side."""

    name: ClassVar[str] = "shards"

    val: ShareOrZero[float] | None = None
    """Share of the images used for validation."""
    shard_size: Positive[int] = 1000
    """Records of a shard."""

    def __post_init__(self) -> None:
        check(self, "curate shards: ")

    def write(self, shards: Sequence[Path], output: Path | str | Place, workers: int | None = None) -> Counter[str]:
        """Write the shards by the importer of ``fgclip data import``; a call that was stopped goes on.

        Args:
            shards: the input, with boxes as fractions of the upright image.
            output: a folder of their own, or a URL of one, to which the shards are sent when all are written.
            workers: processes; None: one for each core.

        Returns:
            Records written to each split, and counts of what was left out, by cause.

        Raises:
            ValueError: the folder holds the shards of another input, or no record is usable.
            OSError: the shards cannot be written.
        """
        place = place_of(output)
        self._check_plan(place, shards)
        if place.read(MANIFEST) is None:
            with place.working() as here:
                if not (here / MANIFEST).exists():
                    self._import(shards, here, workers)
        self._check_plan(place, shards)
        manifest = place.read_json(MANIFEST)
        counts = Counter({f"records in {split}": n for split, n in manifest["written"].items()})
        counts.update({f"records refused: {cause}": n for cause, n in manifest["refused"].items()})
        counts.update(manifest["dropped or filled"])
        return counts

    def _check_plan(self, place: Place, shards: Sequence[Path]) -> None:
        """Refuse a folder that holds something else."""
        plan = place.read_json(PLAN)
        wanted = {"source": files_of(Source(tuple(shards))), "val": self.val, "shard-size": self.shard_size}
        if plan is not None and any(plan.get(name) != value for name, value in wanted.items()):
            raise ValueError(
                f"curate shards: {place} holds shards of other records or settings; delete it to make them anew"
            )

    def _import(self, shards: Sequence[Path], output: Path, workers: int | None) -> None:
        import_records(
            shards,
            output,
            format="img2dataset",
            boxes="xyxy-fraction",
            orientation="upright",
            val=self.val,
            shard_size=self.shard_size,
            workers=workers,
        )
