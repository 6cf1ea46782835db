"""``fgclip data``: make shards from images and annotations, look at them, index and check them."""

import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import Positional

from fgclip_fast import command
from fgclip_fast.config import Data
from fgclip_fast.data.causes import BAD, LONG_CUT, REGION_CUT, SHORT_CUT
from fgclip_fast.data.cut import count_cut, count_regions
from fgclip_fast.data.file_order import examples
from fgclip_fast.data.importers.box_unit import BoxUnit
from fgclip_fast.data.importers.importing import import_records
from fgclip_fast.data.importers.picture import View
from fgclip_fast.data.importers.work_folder import REFUSED_FILE
from fgclip_fast.data.index import index as index_of
from fgclip_fast.data.remote import is_url
from fgclip_fast.data.shards import expand
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.model import config_json
from fgclip_fast.ops.tree import LONG_LENGTH, SHORT_LENGTH
from fgclip_fast.preflight import check_output

_THREADS = 8  # more than cores: indexing waits for disks more than it computes


def import_(
    source: Positional[tuple[Path, ...]],
    /,
    *,
    output: Path,
    images: Path | None = None,
    format: str | None = None,
    boxes: BoxUnit | None = None,
    orientation: View | None = None,
    image_field: str | None = None,
    text_field: str | None = None,
    template: str = "{}",
    val: float | None = None,
    shard_size: int = 1000,
    workers: int | None = None,
    retry_failed: bool = False,
) -> None:
    """Make shards from images and annotations; the format is recognised by content.

    Args:
        source: annotations, files or folders; of COCO, instances and captions may be given together.
        output: folder for train-00000.tar, … and val-00000.tar, …; after a stop, the same command continues.
        images: folder that image paths start from; by default that of the annotations.
        format: name of the format, where it is not to be recognised.
        boxes: meaning of a box's four numbers; by default known from the format or detected from all boxes.
        orientation: the view of images with an EXIF rotation that boxes refer to, if no annotated size tells.
        image_field: field or column with the image's path; by default the usual names.
        text_field: field or column with the text; by default the usual names.
        template: text of a region that has only a category, whose name replaces {}.
        val: share of the images used for validation, 0 to 1; by default the split that the source states, if any.
        shard_size: records of a shard.
        workers: processes; by default one for each core.
        retry_failed: try the refused records of a complete import again.
    """
    if not source:
        raise ValueError("data import: source must be at least one file or folder, got none")
    with command.going_on("data import"):
        written, causes = import_records(
            source,
            output,
            images=images,
            format=format,
            boxes=boxes,
            orientation=orientation,
            image_field=image_field,
            text_field=text_field,
            template=template,
            val=val,
            shard_size=shard_size,
            workers=workers,
            retry_failed=retry_failed,
        )
    test = f", {written['test']} to test on" if written["test"] else ""
    print(f"{output}: {written['train']} records to train on, {written['val']} to validate on{test}")
    _print(causes)
    if sum(causes[cause] for cause in BAD):
        print(f"{output / REFUSED_FILE} names what was left out; --retry-failed tries it again")


def index(shards: Positional[str], /) -> None:
    """Index shards ahead of time, so that training starts at once.

    Args:
        shards: path, glob or {000..999} range of .tar files, or their folder.
    """
    paths = expand(shards)
    samples = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for path, found in zip(paths, pool.map(index_of, paths), strict=True):
            samples += found.samples
            if found.damaged_at >= 0:
                print(f"{path}: ends at byte {found.damaged_at}, after {found.samples} samples")
    print(f"{len(paths)} shards, {samples} samples")


def check(shards: Positional[str], /, *, limit: int | None = None) -> None:
    """Read and decode every record, name each bad one, and count the defects that training would meet.

    Args:
        shards: path, glob or {000..999} range of .tar files, or their folder.
        limit: stop after this many good records.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"data check: --limit must be at least 1 record, got {limit}")
    counts: Counter[str] = Counter()
    found: Counter[str] = Counter()
    tokenizer = Tokenizer()
    everything = Data(regions=sys.maxsize, negatives=sys.maxsize)
    for example in examples(shards, image_size=64, data=everything, limit=limit, counts=counts):
        found["good records"] += 1
        found["regions"] += len(example.boxes)
        found["regions with negatives"] += sum(map(bool, example.hard_texts))
        count_regions(len(example.boxes), Data().regions, counts)
        regions = [*example.region_texts, *(text for group in example.hard_texts for text in group[1:])]
        count_cut([example.short], SHORT_CUT, SHORT_LENGTH, tokenizer, counts)
        count_cut(regions, REGION_CUT, SHORT_LENGTH, tokenizer, counts)
        count_cut([example.long], LONG_CUT, LONG_LENGTH, tokenizer, counts)
    bad = sum(counts[cause] for cause in BAD)
    print(f"{found['good records']} good records, {bad} bad")
    print(f"{found['regions']} regions, {found['regions with negatives']} of them with negatives")
    _print(counts)
    if not found["good records"]:
        raise ValueError(f"data check: {shards} holds no {'good record' if bad else 'record'}")


def inspect(
    shards: Positional[str],
    /,
    *,
    output: Path | None = None,
    model: str = "vit-b16",
    workers: int | None = None,
    limit: int | None = None,
) -> None:
    """Look before training: print counts and warnings, and write a page of images with their boxes and texts.

    Args:
        shards: path, glob or {000..999} range of .tar files, or their folder.
        output: the page; by default inspect.html beside the first shard, or here if that is remote.
        model: vit-b16, vit-l14-336, or a folder of weights: its image and patch size are those that sizes refer to.
        workers: processes; by default one for each core.
        limit: records of each shard at most.
    """
    from fgclip_fast import inspection  # here, since the other commands need none of it

    if limit is not None and limit < 1:
        raise ValueError(f"data inspect: --limit must be at least 1 record, got {limit}")
    paths = expand(shards)
    page = output or (Path() if is_url(shards) else paths[0].parent) / "inspect.html"
    check_output("data inspect: --output", page)
    found = inspection.survey(paths, _settings(model), workers=workers, limit=limit)
    for name, value in inspection.figures(found).items():
        print(command.printable(f"{name:16s}{value}"))
    _print(found.part.causes)
    for warning in inspection.write(found, page):
        print(command.printable(f"warning: {warning.title}: {warning.detail}"))
    print(f"{page} shows images, boxes and texts")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    commands: dict[str, Any] = {"import": import_, "inspect": inspect, "index": index, "check": check}
    with command.frame("data"):
        tyro.extras.subcommand_cli_from_dict(commands, prog="fgclip data", args=arguments)


def _settings(model: str) -> Any:
    """The sizes of a model, by name or from its config.json."""
    from fgclip_fast.inspection import Settings
    from fgclip_fast.presets import B16, L14

    named = {"vit-b16": B16, "vit-l14-336": L14}
    if model not in named and not (Path(model) / "config.json").is_file():
        raise ValueError(
            f"data inspect: --model must be {', '.join(named)} or a folder with a config.json, got {model}"
        )
    vision = (named[model] if model in named else config_json.read(Path(model) / "config.json")).vision
    return Settings(image_size=vision.image_size, patch_size=vision.patch_size)


def _print(counts: Counter[str]) -> None:
    for cause, n in counts.most_common():
        print(f"  {n:8d}  {cause}")


if __name__ == "__main__":
    main()
