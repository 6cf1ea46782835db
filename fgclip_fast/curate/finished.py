"""The stage *shards*: training and validation shards of what the other stages have made."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fgclip_fast.config_rules import Positive, ShareOrZero, check
from fgclip_fast.curate.folder import read_json
from fgclip_fast.curate.upload import upload
from fgclip_fast.data.importers.importing import import_records
from fgclip_fast.data.importers.source import Source
from fgclip_fast.data.importers.work_folder import MANIFEST, files_of
from fgclip_fast.data.remote import is_url


@dataclass(frozen=True, kw_only=True)
class Shards:
    """Divides records among ``train-00000.tar``, … and ``val-00000.tar``, …; those that no loader could use are left
    out, and near-duplicates stay on one side."""

    name: ClassVar[str] = "shards"

    val: ShareOrZero[float] | None = None
    """Share of the images used for validation."""
    shard_size: Positive[int] = 1000
    """Records of a shard."""
    upload: str = ""
    """URL of a folder in object storage that the shards are copied to, by fsspec: s3://bucket/mine; empty: none."""

    def __post_init__(self) -> None:
        check(self, "curate shards: ")
        if self.upload and not is_url(self.upload):
            raise ValueError(f"curate shards: upload must be a URL such as s3://bucket/mine, got {self.upload!r}")

    def write(self, shards: Sequence[Path], output: Path, workers: int | None = None) -> Counter[str]:
        """Write the shards by the importer of ``fgclip data import``; a call that was stopped goes on.

        Args:
            shards: the input, with boxes as fractions of the upright image.
            output: a folder of their own.
            workers: processes; None: one for each core.

        Returns:
            Records written to each split, and counts of what was left out, by cause.

        Raises:
            ValueError: the folder holds the shards of another input, or no record is usable.
            OSError: the shards cannot be copied.
        """
        manifest = read_json(output / MANIFEST)
        if manifest is None:
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
            manifest = read_json(output / MANIFEST)
        plan = read_json(output / ".import" / "plan.json")
        same = plan["source"] == files_of(Source(tuple(shards))) and plan["val"] == self.val
        if not same or plan["shard-size"] != self.shard_size:
            raise ValueError(
                f"curate shards: {output} holds shards of other records or settings; delete it to make them anew"
            )
        counts = Counter({f"records in {split}": n for split, n in manifest["written"].items()})
        counts.update({f"records refused: {cause}": n for cause, n in manifest["refused"].items()})
        counts.update(manifest["dropped or filled"])
        if self.upload:
            upload(sorted(output.glob("*.tar")), self.upload, output / ".import" / "uploaded.json")
        return counts
