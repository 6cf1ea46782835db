"""The table of formats that can be imported.

A new format is a file in this folder and a row of :data:`FORMATS`. Its ``recognise`` looks at content and returns the
evidence in words, or None; its ``read`` yields records in a fixed order, each time the same.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from fgclip_fast.data.importers import (
    arrow_tables,
    coco,
    csv_rows,
    cvat,
    flickr30k_entities,
    img2dataset,
    json_records,
    json_stream,
    labelme,
    open_images,
    refcoco,
    visual_genome,
    voc,
    yolo,
)
from fgclip_fast.data.importers.box_unit import BoxUnit
from fgclip_fast.data.importers.source import Options, Source, SourceRecord, head


class Format(NamedTuple):
    """One row of the table."""

    about: str
    """For messages and the documentation."""
    recognise: Callable[[Source, Options], str | None]
    """Gives the evidence that a source has this format, None if it does not."""
    read: Callable[[Source, Options], Iterable[SourceRecord]]
    """Yields the records; a fault of one record is stated in it, a fault of a whole file raises ValueError."""
    boxes: BoxUnit | None = None
    """The unit that the format defines; None: it is detected."""


FORMATS = {
    "refcoco": Format(
        "RefCOCO's, RefCOCO+'s or RefCOCOg's references as JSON, with instances.json",
        refcoco.recognise,
        refcoco.read,
        "xywh-pixel",
    ),
    "coco": Format(
        "COCO's or LVIS's JSON: images with annotations, captions or both", coco.recognise, coco.read, "xywh-pixel"
    ),
    "visual_genome": Format(
        "Visual Genome's region_descriptions.json, with image_data.json",
        visual_genome.recognise,
        visual_genome.read,
        "xywh-pixel",
    ),
    "labelme": Format("LabelMe's JSON, a file for each image", labelme.recognise, labelme.read, "xyxy-pixel"),
    "flickr30k_entities": Format(
        "Flickr30k Entities: a folder with Sentences/ and Annotations/",
        flickr30k_entities.recognise,
        flickr30k_entities.read,
        "xyxy-pixel",
    ),
    "cvat": Format("CVAT's XML for images", cvat.recognise, cvat.read, "xyxy-pixel"),
    "voc": Format("Pascal VOC's XML, a file for each image", voc.recognise, voc.read, "xyxy-pixel"),
    "yolo": Format(
        "YOLO: a folder with data.yaml or classes.txt, and labels/ beside images/",
        yolo.recognise,
        yolo.read,
        "cxcywh-fraction",
    ),
    "open_images": Format(
        "Open Images' CSV of boxes, with that of the classes' names",
        open_images.recognise,
        open_images.read,
        "xyxy-fraction",
    ),
    "json": Format(
        f"JSON lines or a JSON list of records with the image's path in {', '.join(json_records.IMAGE_FIELDS)}",
        json_records.recognise,
        json_records.read,
    ),
    "img2dataset": Format(
        "img2dataset's output, and other tars or folders of images with a .txt or .json of the same name",
        img2dataset.recognise,
        img2dataset.read,
    ),
    "table": Format(
        "parquet files, and folders of Hugging Face datasets, with images or their paths",
        arrow_tables.recognise,
        arrow_tables.read,
    ),
    "csv": Format(
        f"CSV or TSV with a header that names a column {', '.join(csv_rows.IMAGE_COLUMNS)}",
        csv_rows.recognise,
        csv_rows.read,
    ),
}
"""Name → format, in the order in which they are tried."""


def recognise(source: Source, options: Options) -> tuple[str, str]:
    """Find the format of a source by its content.

    Returns:
        The name of the format, and the evidence.

    Raises:
        ValueError: no format recognises it; the message lists them.
    """
    for name, row in FORMATS.items():
        evidence = row.recognise(source, options)
        if evidence is not None:
            return name, evidence
    if source.files and all(head(file).strip() in (b"", b"[]") for file in source.files):
        raise ValueError(f"data import: {', '.join(map(str, source.paths))} holds no record")
    known = "; ".join(f"{name}: {row.about}" for name, row in FORMATS.items())
    first = ", ".join(file.name for file in source.files[:3]) or "no file"
    lone = any(json_stream.kind(head(file)) == "object" for file in source.files)
    hint = ", a JSON object: records must be one in each line, or one list" if lone else ""
    raise ValueError(
        f"data import: source must have a known format, got {first}"
        f"{' …' if len(source.files) > 3 else ''}{hint}. Known are: {known}. --format NAME takes one without asking"
    )
