"""The stage *negatives* by rules: texts that contradict a region's short expression, made without any model."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from typing import Any, ClassVar

from fgclip_fast.config.rules import NotNegative, Positive, ShareOrZero
from fgclip_fast.curate.cluster import HERE, Cluster
from fgclip_fast.curate.folder import OutputFolder, rows_of
from fgclip_fast.curate.lexicon.rules import NOUN_SHARE, Level, NounSwaps, Rules, count_values
from fgclip_fast.curate.places.place import Place
from fgclip_fast.curate.records import texts_of, with_negatives
from fgclip_fast.curate.running import run
from fgclip_fast.curate.stage import Done, Item, Stage
from fgclip_fast.curate.units import Unit, shards_of
from fgclip_fast.data.importers.work_folder import REFUSED_FILE
from fgclip_fast.data.shards import Sample

_OTHERS = 10_000  # texts kept for the level "trivial", chosen by their digest


@dataclass(frozen=True, kw_only=True)
class Negatives(Stage):
    """Hard negatives by rules: words of the short expression are replaced by others that contradict them."""

    name: ClassVar[str] = "negatives"
    in_place: ClassVar[bool] = True

    count: Positive[int] = 10
    """Negatives of a region."""
    level: Level = "mix"
    """mix: one to three attributes changed; hard, medium, easy: exactly one, two, three; trivial: the text of another
    region; color, material, pattern, transparency: one attribute of this kind."""
    noun_swaps: NounSwaps = "bare"
    """never: the noun stays; fill: another noun in a share of the negatives, and where attributes give too few; bare:
    also for texts without an attribute, such as the name of a category. For the level mix."""
    noun_share: ShareOrZero[float] = NOUN_SHARE
    """That share, 0 to 1. 0: another noun only where attributes give too few."""
    replace: bool = False
    """Also write negatives for regions that have some."""
    seed: NotNegative[int] = 0
    """Of every choice."""

    @property
    def looks(self) -> bool:
        """The words of the whole set are counted first."""
        return True

    def look(self, samples: Iterable[Sample]) -> Any:
        """Count the words of a shard's texts, so that negatives use the words that the set itself uses."""
        texts = [text for sample in samples for text in texts_of(sample.parts)]
        return [dict(count_values(texts)), nsmallest(_OTHERS, set(texts), key=_digest)]

    def decide(self, found: Iterable[tuple[str, Any]]) -> Any:
        """The counts of all words, and texts of some regions."""
        counts: Counter[str] = Counter()
        others: set[str] = set()
        for _, (words, texts) in found:
            counts.update(words)
            others = set(nsmallest(_OTHERS, others.union(texts), key=_digest))
        return {"counts": dict(sorted(counts.items())), "others": sorted(others, key=_digest)}

    def function(self, known: Any) -> Callable[[Item], Done]:
        """Writes the negatives of a record."""
        rules = Rules(
            known["counts"],
            known["others"],
            level=self.level,
            noun_swaps=self.noun_swaps,
            noun_share=self.noun_share,
            seed=self.seed,
        )
        return lambda item: with_negatives(item.fields, item.key, rules, self.count, self.replace)


def write_negatives(
    shards: Sequence[Path] | Sequence[Unit],
    output: Path | str | Place,
    stage: Negatives,
    workers: int | None = None,
    cluster: Cluster = HERE,
) -> Counter[str]:
    """Write each shard again, under its name in ``output``, with negatives for its regions.

    A first pass counts the words of all texts. Beside what :func:`~fgclip_fast.curate.running.run` writes comes
    ``without_negatives.csv``, a line for each region that got none; an import's ``refused.csv`` is taken along.

    Args:
        shards: their file names must differ; or units of them.
        output: a folder, or a URL of one; that of the shards themselves replaces each of them, once the new one is
            whole.
        stage: the negatives that are wanted.
        workers: processes; None: one for each core that this process may use.
        cluster: Ray, if it has workers, in their place.

    Returns:
        The counts of ``negatives.json``.

    Raises:
        ValueError: two shards have one name, or ``output`` holds other shards or negatives of other settings.
    """
    paths = [shard for shard in shards if isinstance(shard, Path)]
    units = shards_of(paths) if paths else [unit for unit in shards if not isinstance(unit, Path)]
    counts = run(stage, units, output, workers=workers, cluster=cluster)
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(("shard", "key", "region", "text", "cause"))
    folder = OutputFolder(output, stage.name)
    for shard, outcome in folder.outcomes():
        without = (row for row in rows_of(outcome) if row.region is not None)
        table.writerows((shard, row.key, row.region, row.detail, row.cause) for row in without)
    folder.place.write("without_negatives.csv", lines.getvalue())
    if paths:
        refused = paths[0].parent / REFUSED_FILE
        if refused.is_file() and folder.place.read(REFUSED_FILE) is None:
            folder.place.write(REFUSED_FILE, refused.read_bytes())
    return counts


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
