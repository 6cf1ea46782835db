"""Import a source: recognise its format, look at every record, decide for all of them, write shards."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fgclip_fast.data.causes import NOT_JSON
from fgclip_fast.data.importers.box_unit import BoxUnit
from fgclip_fast.data.importers.formats import FORMATS, recognise
from fgclip_fast.data.importers.picture import View
from fgclip_fast.data.importers.rounds import Round, layout
from fgclip_fast.data.importers.source import Options, Source
from fgclip_fast.data.importers.work_folder import LAYOUT, WorkFolder, files_of
from fgclip_fast.data.processes import cores

log = logging.getLogger(__name__)


class Imported(NamedTuple):
    """The result of an import."""

    written: Counter[str]
    """Records of each split that this call wrote: ``train``, ``val``, and ``test`` if the source has one."""
    causes: Counter[str]
    """Number of refused records, dropped regions and filled texts, by cause."""


def import_records(
    source: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    images: str | Path | None = None,
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
) -> Imported:
    """Make shards ``output/train-00000.tar``, … and ``output/val-00000.tar``, … of any format in the table.

    An import that was stopped is continued by the same call; the shards are the same bytes whatever the number of
    workers. ``output/import.json`` marks a complete import, ``output/refused.csv`` lists what was left out.

    Args:
        source: annotations: files or folders.
        output: the folder for shards; new, or that of the import to continue.
        images: the folder that image paths start from; None: the folder of the annotations.
        format: a name of :data:`~fgclip_fast.data.importers.formats.FORMATS`; None: it is recognised by content.
        boxes: the meaning of a box's four numbers; None: it is known from the format or detected.
        orientation: the view of an image with an EXIF rotation that boxes refer to, where the annotated width and
            height do not tell.
        image_field: name of the field or column with the image's path.
        text_field: name of the field or column with the text.
        template: text of a region that has only a category; ``{}`` is the category's name.
        val: share of the images used for validation; None: the source's own split, training where it has none.
            Duplicates and near-duplicates stay together.
        shard_size: records of a shard.
        workers: processes; None: one for each core.
        retry_failed: try the refused records of a complete import again, and add shards with those that work now.

    Raises:
        ValueError: an argument is wrong, boxes are ambiguous, or no record is usable.
        OSError: a file cannot be read or written.
    """
    paths = tuple(map(Path, [source] if isinstance(source, str | Path) else source))
    output, images = Path(output), None if images is None else Path(images)
    _check_arguments(images, output, format, val, shard_size, workers, template)
    given = Source(paths)
    options = Options(images, image_field, text_field, template)
    name, evidence = (format, "as --format says") if format else recognise(given, options)
    log.info("%s, %s", name, evidence)
    plan = {
        "source": files_of(given), "format": name, "images": str(images), "image-field": image_field,
        "text-field": text_field, "template": template, "val": val, "shard-size": shard_size, LAYOUT: layout(),
    }  # fmt: skip
    work = WorkFolder(output, plan, retry_failed)
    with work.alone():
        step = Round(work, lambda: FORMATS[name].read(given, options), workers or cores())
        step.look()
        if not step.anything_usable:
            work.discard()
            raise _nothing_usable(given, images, step.refused)
        meaning = step.meaning(boxes or FORMATS[name].boxes, orientation)
        step.write(meaning, val, shard_size)
        step.publish({"format": name, "evidence": evidence})
    return Imported(step.written, step.refused + step.parts)


def _check_arguments(
    images: Path | None,
    output: Path,
    format: str | None,
    val: float | None,
    shard_size: int,
    workers: int | None,
    template: str,
) -> None:
    if images is not None and not images.is_dir():
        raise ValueError(f"data import: --images must be a folder, got {images}, which is not a folder")
    existing = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"data import: --output must be a new folder, got {output}, but {existing} is a file")
    if val is not None and not 0 <= val <= 1:  # nan too
        raise ValueError(f"data import: --val must be a share of the images, 0 to 1, got {val}")
    if shard_size < 1:
        raise ValueError(f"data import: --shard-size must be at least 1 record, got {shard_size}")
    if format is not None and format not in FORMATS:
        raise ValueError(f"data import: --format must be one of {', '.join(FORMATS)}, got {format}")
    if workers is not None and workers < 1:
        raise ValueError(f"data import: --workers must be at least 1 process, got {workers}")
    if "{}" not in template:
        raise ValueError(f"data import: --template must hold {{}} for the category's name, got {template!r}")


def _nothing_usable(source: Source, images: Path | None, refused: Counter[str]) -> ValueError:
    names = ", ".join(map(str, source.paths))
    if not refused:
        return ValueError(f"data import: {names} holds no record")
    counts = ", ".join(f"{n} x {cause}" for cause, n in refused.most_common())
    hint = "; each line must be a whole record, or the file one JSON list" if NOT_JSON in refused else ""
    where = images if images is not None else source.folder
    return ValueError(f"data import: no record of {names} is usable with the images of {where}: {counts}{hint}")
