"""``fgclip curate``: from images to training data, stage by stage."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

import tyro
from tyro.conf import Positional, arg

from fgclip_fast import command
from fgclip_fast.curate import recipe as recipes
from fgclip_fast.curate.captions import Captions
from fgclip_fast.curate.chat_negatives import ChatLevel, ChatNegatives
from fgclip_fast.curate.cluster import HERE, Cluster
from fgclip_fast.curate.filters import Filter
from fgclip_fast.curate.finished import Shards
from fgclip_fast.curate.folder import place_of
from fgclip_fast.curate.lexicon.rules import ALL_KINDS
from fgclip_fast.curate.models.chat_model import Chat
from fgclip_fast.curate.negatives import Negatives, write_negatives
from fgclip_fast.curate.phrases import Images, Phrases
from fgclip_fast.curate.places.place import Place
from fgclip_fast.curate.prompts import write_prompts
from fgclip_fast.curate.records import NOTHING_TO_CHANGE
from fgclip_fast.curate.regions import Regions
from fgclip_fast.curate.running import run
from fgclip_fast.curate.stage import Stage
from fgclip_fast.curate.units import Unit, images_in, shards_of
from fgclip_fast.preflight import check_output, list_shards

PAGE = "curation.html"
T = TypeVar("T")
StageT = TypeVar("StageT", bound=Stage)


def images(
    source: Positional[Path],
    /,
    *,
    output: str,
    shard_size: int = 1000,
    retry_failed: bool = False,
    workers: int | None = None,
    ray: Cluster = HERE,
) -> None:
    """Make shards of images, for the next stages: of a folder, or of the tar files in it.

    A .txt or .json of the same name beside an image gives its texts.

    Args:
        source: the folder, or a tar file.
        output: folder for the shards, or a URL of one; after a stop, the same command continues.
        shard_size: images of a shard.
        retry_failed: try images again that could not be read.
        workers: processes; None: one for each core that this process may use.
        ray: a Ray cluster in their place.
    """
    if shard_size < 1:
        raise ValueError(f"curate images: --shard-size must be at least 1 image, got {shard_size}")
    _run(Images(), images_in(source, shard_size), output, workers, retry_failed, ray)


def negatives(
    shards: Positional[str],
    /,
    *,
    output: str,
    stage: Annotated[Negatives, arg(name="")] = Negatives(),  # noqa: B008
    method: Literal["rules", "chat"] = "rules",
    chat: Chat = Chat(),  # noqa: B008
    prompts: Path | None = None,
    retry_failed: bool = False,
    workers: int | None = None,
    ray: Cluster = HERE,
) -> None:
    """Write hard negatives for the regions of shards. Run again, it goes on where it was interrupted.

    Args:
        shards: path, glob or {000..999} range of .tar files, or their folder.
        output: folder for the new shards, of the same names, or a URL of one; the folder of the shards themselves
            replaces them.
        stage: the negatives that are wanted.
        method: rules: words of the short expression are replaced by others that contradict them, and no model is used;
            chat: a model writes them.
        chat: the model, with --method chat.
        prompts: folder with an edited prompt, which `fgclip curate prompts` writes; with --method chat.
        retry_failed: ask again for regions that got no usable answer; with --method chat.
        workers: processes, with --method rules; None: one for each core that this process may use.
        ray: a Ray cluster in their place.
    """
    _check_workers("negatives", workers)
    if method == "chat":
        levels = get_args(ChatLevel)
        if stage.level not in levels:
            raise ValueError(f"curate negatives: --level must be {', '.join(levels)} with chat, got {stage.level}")
        level = cast(ChatLevel, stage.level)
        asking = ChatNegatives(chat=chat, count=stage.count, level=level, replace=stage.replace, prompts=prompts)
        _run(asking, shards_of(list_shards("shards", shards)), output, workers, retry_failed, ray)
        return
    paths = list_shards("shards", shards)
    counts = _interruptible("negatives", lambda: write_negatives(paths, output, stage, workers, ray))
    print(f"{output}: {counts['regions with new negatives']} of {counts['regions']} regions have new negatives")
    for name in sorted(name for name in counts if name.startswith(("regions ", "bad ", "shards ")) and counts[name]):
        print(f"  {counts[name]:8d}  {name}")
    if counts[f"regions without: {NOTHING_TO_CHANGE}"] and stage.level == "mix" and stage.noun_swaps != "bare":
        print(
            "--noun-swaps bare gives texts without an attribute, such as names of categories, negatives by other nouns"
        )
    total = max(1, counts["negatives"])
    print(f"{counts['negatives']} negatives, and the share of them that changes each kind:")
    for kind in ALL_KINDS:
        if counts[f"kind {kind}"]:
            print(f"  {counts[f'kind {kind}'] / total:8.1%}  {kind}")


def report(
    folder: Positional[str], /, *, output: Path | None = None, workers: int | None = None, seed: int = 0
) -> None:
    """Write a page: what became of the images, texts and negatives in numbers, cost, and 50 records to judge.

    Args:
        folder: holds the folders of the stages, as `fgclip curate run` writes them; or a URL of it.
        output: the page; by default curation.html in the folder.
        workers: processes; None: one for each core that this process may use.
        seed: of the choice of records.
    """
    _check_workers("report", workers)
    _report(place_of(folder), output, workers, seed)


def _report(place: Place, output: Path | None, workers: int | None, seed: int = 0) -> None:
    from fgclip_fast.inspection import curation  # here, since the other commands need none of it

    if output is not None:
        check_output("curate report: --output", output)
    with place.writing(PAGE) if output is None else nullcontext(output) as page:
        curation.write(place, page, workers=workers, seed=seed)
    print(f"{output or f'{place}/{PAGE}'} shows what became of the images")


def prompts(folder: Positional[Path], /) -> None:
    """Write the prompts as files to edit; --prompts FOLDER uses them. Files that exist stay as they are.

    Args:
        folder: where to.
    """
    for file in write_prompts(folder):
        print(file)


def shards(
    shards: Positional[str],
    /,
    *,
    output: str,
    stage: Annotated[Shards, arg(name="")] = Shards(),  # noqa: B008
    workers: int | None = None,
) -> None:
    """Write training and validation shards of curated records; near-duplicates stay on one side.

    Args:
        shards: path, glob or {000..999} range of .tar files, or their folder.
        output: folder for train-00000.tar, … and val-00000.tar, …, or a URL of one; after a stop, the same command
            continues.
        stage: its settings.
        workers: processes; None: one for each core that this process may use.
    """
    _check_workers("shards", workers)
    paths = list_shards("shards", shards)
    _print(output, _interruptible("shards", lambda: stage.write(paths, output, workers)))


def run_(recipe: Positional[Path], /, *, retry_failed: bool = False, workers: int | None = None) -> None:
    """Run all stages of a recipe; after a stop, the same command continues.

    Args:
        recipe: a YAML file; docs/curate.md shows one.
        retry_failed: try the records again that failed, in every stage.
        workers: processes of stages that ask no model; None: one for each core that this process may use.
    """
    _check_workers("run", workers)
    wanted = recipes.read(recipe)

    def told(name: str, folder: Place, counts: Counter[str]) -> None:
        print(f"--- {name}")
        _print(folder, counts)

    _interruptible("run", lambda: recipes.run_recipe(wanted, workers=workers, retry_failed=retry_failed, told=told))
    _report(place_of(wanted.output), None, workers)


def _command(kind: type[StageT]) -> Callable[..., None]:
    """The command of a stage: its fields are its arguments."""

    def command(
        shards: Positional[str],
        /,
        *,
        output: str,
        stage: Annotated[kind, arg(name="")],  # type: ignore[valid-type]
        retry_failed: bool = False,
        workers: int | None = None,
        ray: Cluster = HERE,
    ) -> None:
        _run(stage, shards_of(list_shards("shards", shards)), output, workers, retry_failed, ray)

    command.__doc__ = f"""{kind.__doc__}

    Args:
        shards: path, glob or {{000..999}} range of .tar files, or their folder.
        output: folder for the new shards, of the same names, or a URL of one; after a stop, the same command
            continues.
        stage: its settings.
        retry_failed: try the records again that failed.
        workers: processes of a stage that asks no model; None: one for each core that this process may use.
        ray: a Ray cluster in their place.
    """
    return command


def _run(
    stage: Stage, units: Sequence[Unit], output: str, workers: int | None, retry_failed: bool, ray: Cluster
) -> None:
    _check_workers(stage.name, workers)
    counts = _interruptible(
        stage.name, lambda: run(stage, units, output, workers=workers, retry_failed=retry_failed, cluster=ray)
    )
    _print(output, counts)
    if isinstance(stage, Captions | ChatNegatives) and stage.chat.cost(counts):
        print(f"  {stage.chat.cost(counts):8.2f}  US dollars of tokens")


def _print(output: object, counts: Counter[str]) -> None:
    left = counts["records dropped"] + counts["records failed"]
    if counts["records"]:
        print(f"{output}: {counts['records'] - left} of {counts['records']} records")
    else:
        print(f"{output}:")
    for name in sorted(name for name in counts if name not in ("records", "shards") and counts[name]):
        print(f"  {counts[name]:8d}  {name}")
    if counts["records failed"]:
        print("--retry-failed tries the failed ones again; NAME.parquet beside each shard names them")


def _check_workers(stage: str, workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise ValueError(f"curate {stage}: --workers must be at least 1, got {workers}")


def _interruptible(stage: str, work: Callable[[], T]) -> T:
    with command.going_on(f"curate {stage}"):
        return work()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    commands: dict[str, Any] = {
        "run": run_,
        "images": images,
        "negatives": negatives,
        "shards": shards,
        "prompts": prompts,
        "report": report,
    }
    commands |= {kind.name: _command(kind) for kind in (Captions, Phrases, Regions, Filter)}
    with command.frame("curate"):
        tyro.extras.subcommand_cli_from_dict(commands, prog="fgclip curate", args=arguments)


if __name__ == "__main__":
    main()
