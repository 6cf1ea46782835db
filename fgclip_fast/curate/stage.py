"""Write the negatives of a whole set of shards: in parallel, interruptible, the same bytes each time."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from heapq import nsmallest
from pathlib import Path

from fgclip_fast.config_rules import NotNegative, Positive, ShareOrZero, check
from fgclip_fast.curate.records import texts_of, with_negatives
from fgclip_fast.curate.rules import NOUN_SHARE, Level, NounSwaps, Rules, count_values
from fgclip_fast.data.processes import cores, in_order
from fgclip_fast.data.records import part_name
from fgclip_fast.data.remote import state as state_of_shard
from fgclip_fast.data.shards import Shard, ShardWriter
from fgclip_fast.progress import Progress
from fgclip_fast.whole_file import write_json, write_whole

STATE = "_negatives"
"""Folder in the output that holds the settings, the words of the set, and the outcome of each shard."""

_OTHERS = 10_000  # texts kept for the level "trivial", chosen by their digest
_NAMED = ("curate negatives", " the same command continues,")  # for the error of a worker that was killed


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The negatives that are wanted."""

    count: Positive[int] = 10
    level: Level = "mix"
    noun_swaps: NounSwaps = "fill"
    noun_share: ShareOrZero[float] = NOUN_SHARE
    replace: bool = False
    seed: NotNegative[int] = 0

    def __post_init__(self) -> None:
        check(self, "curate negatives: ")


def write_negatives(
    shards: Sequence[Path], output: Path, settings: Settings, workers: int | None = None
) -> Counter[str]:
    """Write each shard again, under its name in ``output``, with negatives for its regions.

    A first pass counts the words of all texts, so that negatives use the words that the set itself uses. Shards that an
    interrupted call has finished are not written again. Beside the shards come ``negatives.json``, the counts by kind
    and cause, and ``without_negatives.csv``, a line for each region that got none.

    Args:
        shards: their file names must differ.
        output: a folder; that of the shards themselves replaces each of them, once the new one is whole.
        settings: the negatives that are wanted.
        workers: processes; None: one for each core that this process may use.

    Returns:
        The counts of ``negatives.json``.

    Raises:
        ValueError: two shards have one name, or ``output`` holds other shards or negatives of other settings.
    """
    state = output / STATE
    _claim(shards, output, settings)
    rest = [shard for shard in shards if not _is_done(shard, output)]
    progress = Progress(len(shards), len(shards) - len(rest))
    processes = max(1, min(workers or cores(), len(rest)))
    try:
        if not (state / "words.json").exists():
            _count_words(shards, state / "words.json", processes, progress)
        done = len(shards) - len(rest)
        negatives, tasks = 0, ((shard, output, settings) for shard in rest)
        for counts in in_order(_write_shard, tasks, processes, *_NAMED):
            done, negatives = done + 1, negatives + counts["negatives"]
            progress.update(done, f"shards, {negatives} new negatives")
    finally:
        progress.close()
    return _report(shards, output, settings)


def _claim(shards: Sequence[Path], output: Path, settings: Settings) -> None:
    """Note the settings in the output folder, or check that those noted there are the same."""
    names = [shard.name for shard in shards]
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise ValueError(f"curate negatives: shards must have different names, got {twice[0]} twice")
    if output.exists() and not output.is_dir():
        raise ValueError(f"curate negatives: --output must be a folder, got the file {output}")
    noted = output / STATE / "settings.json"
    wanted = {**asdict(settings), "shards": names}
    in_place = all(shard.parent.resolve() == output.resolve() for shard in shards)
    if noted.exists():
        if json.loads(noted.read_text(encoding="utf-8")) != wanted:
            hint = "delete its folder _negatives to start anew" if in_place else "choose another folder"
            raise ValueError(f"curate negatives: {output} holds negatives of other shards or settings; {hint}")
        return
    if not in_place and any(output.glob("*.tar")):
        raise ValueError(f"curate negatives: --output must hold no shards, got {output}; choose another folder")
    noted.parent.mkdir(parents=True, exist_ok=True)
    write_json(noted, wanted)


def _count_words(shards: Sequence[Path], path: Path, processes: int, progress: Progress) -> None:
    counts: Counter[str] = Counter()
    others: set[str] = set()
    read = in_order(_words_of, ((shard,) for shard in shards), processes, *_NAMED)
    for number, (found, texts) in enumerate(read, start=1):
        counts += found
        others = set(nsmallest(_OTHERS, others.union(texts), key=_digest))
        progress.update(0, f"shards; words counted in {number}")
    write_json(path, {"counts": dict(sorted(counts.items())), "others": sorted(others, key=_digest)})


def _words_of(shard: Path) -> tuple[Counter[str], list[str]]:
    opened = Shard(shard)
    texts = [text for i in range(len(opened)) for text in texts_of(opened.read(i).parts)]
    return count_values(texts), nsmallest(_OTHERS, set(texts), key=_digest)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _write_shard(shard: Path, output: Path, settings: Settings) -> Counter[str]:
    rules = _rules(output / STATE / "words.json", settings)
    source = Shard(shard)
    counts: Counter[str] = Counter({"shards that end early": int(source.damaged)})
    without = []
    with ShardWriter(output / shard.name) as target:
        for i in range(len(source)):
            key, parts = source.read(i)
            if (name := part_name(parts, ("json",))) is not None:
                raw, lacking, found = with_negatives(parts[name], key, rules, settings.count, settings.replace)
                parts[name] = raw
                without += [(key, *entry) for entry in lacking]
                counts += found
            target.write(key, **parts)
    outcome = {"source": _state_of(shard), "written": _state_of(output / shard.name)}
    write_json(_outcome(shard, output), {**outcome, "counts": dict(sorted(counts.items())), "without": without})
    return counts


@lru_cache(maxsize=1)
def _rules(words: Path, settings: Settings) -> Rules:
    found = json.loads(words.read_text(encoding="utf-8"))
    return Rules(
        found["counts"],
        found["others"],
        level=settings.level,
        noun_swaps=settings.noun_swaps,
        noun_share=settings.noun_share,
        seed=settings.seed,
    )


def _is_done(shard: Path, output: Path) -> bool:
    """True if the shard was written, and neither it nor its source has changed since."""
    written, outcome = output / shard.name, _outcome(shard, output)
    if not (written.exists() and outcome.exists()):
        return False
    noted = json.loads(outcome.read_text(encoding="utf-8"))
    is_source = written.resolve() == shard.resolve()
    return noted["written"] == _state_of(written) and (is_source or noted["source"] == _state_of(shard))


def _outcome(shard: Path, output: Path) -> Path:
    return output / STATE / f"{shard.name}.json"


def _state_of(path: Path) -> list[int]:
    return list(state_of_shard(path))


def _report(shards: Sequence[Path], output: Path, settings: Settings) -> Counter[str]:
    counts: Counter[str] = Counter()
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(("shard", "key", "region", "text", "cause"))
    for shard in shards:
        outcome = json.loads(_outcome(shard, output).read_text(encoding="utf-8"))
        counts.update(outcome["counts"])
        table.writerows((shard.name, *entry) for entry in outcome["without"])
    write_whole(output / "without_negatives.csv", lines.getvalue())
    write_json(output / "negatives.json", {"settings": asdict(settings), "counts": dict(sorted(counts.items()))})
    return counts
