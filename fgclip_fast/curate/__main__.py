"""``fgclip curate``: make training data better than it came, stage by stage."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import Positional

from fgclip_fast import command
from fgclip_fast.curate.rules import ALL_KINDS, NOUN_SHARE, Level, NounSwaps
from fgclip_fast.curate.stage import Settings, write_negatives
from fgclip_fast.preflight import list_shards


def negatives(
    shards: Positional[str],
    /,
    *,
    output: Path,
    method: Literal["rules"] = "rules",
    count: int = 10,
    level: Level = "mix",
    noun_swaps: NounSwaps = "fill",
    noun_share: float = NOUN_SHARE,
    replace: bool = False,
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Write hard negatives for the regions of shards. Run again, it goes on where it was interrupted.

    Args:
        shards: path, glob or {000..999} range of .tar files, or their folder.
        output: folder for the new shards, of the same names; the folder of the shards themselves replaces them.
        method: rules: words of the short expression are replaced by others that contradict them. No model is used.
        count: negatives of a region.
        level: mix: one to three attributes changed; hard, medium, easy: exactly one, two, three; trivial: the text of
            another region; color, material, pattern, transparency: one attribute of this kind.
        noun_swaps: never: the noun stays; fill: another noun in a share of the negatives, and where attributes give
            too few; bare: also for texts without an attribute. For the level mix.
        noun_share: that share, 0 to 1. 0: another noun only where attributes give too few.
        replace: also write negatives for regions that have some.
        seed: of every choice.
        workers: processes; None: one for each core that this process may use.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"curate negatives: --workers must be at least 1, got {workers}")
    settings = Settings(
        count=count, level=level, noun_swaps=noun_swaps, noun_share=noun_share, replace=replace, seed=seed
    )
    try:
        counts = write_negatives(list_shards("shards", shards), output, settings, workers)
    except KeyboardInterrupt:
        sys.exit("curate negatives: interrupted; the same command goes on from here")
    print(f"{output}: {counts['regions with new negatives']} of {counts['regions']} regions have new negatives")
    _print(counts)


def _print(counts: Counter[str]) -> None:
    for name in sorted(name for name in counts if name.startswith(("regions ", "bad ", "shards ")) and counts[name]):
        print(f"  {counts[name]:8d}  {name}")
    total = max(1, counts["negatives"])
    print(f"{counts['negatives']} negatives, and the share of them that changes each kind:")
    for kind in ALL_KINDS:
        if counts[f"kind {kind}"]:
            print(f"  {counts[f'kind {kind}'] / total:8.1%}  {kind}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    commands: dict[str, Any] = {"negatives": negatives}
    with command.frame("curate"):
        tyro.extras.subcommand_cli_from_dict(commands, prog="fgclip curate", args=arguments)


if __name__ == "__main__":
    main()
