"""Names of the columns of tables, and a row of a table as the fields of a record."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fgclip_fast.data.importers.json_records import objects
from fgclip_fast.data.importers.source import Options, captioned, region

IMAGE_COLUMNS = (
    "filepath", "image", "image_path", "file_name", "filename", "image_name", "img_path", "img", "path", "jpg", "png",
)  # fmt: skip
"""Names of a column with images or their paths."""
TEXT_COLUMNS = (
    "title",
    "caption",
    "text",
    "captions",
    "short_caption",
    "comment",
    "sentence",
    "sentences",
    "description",
)
"""Names of a column with captions."""
_LONG = ("long_caption",)
_LABELS = ("label", "class", "category", "name", "phrase")
_CORNERS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"))


class Columns(NamedTuple):
    """The columns of a table that are used."""

    image: str
    text: str | None
    long: str | None
    label: str | None
    corners: tuple[str, ...] | None
    box: str | None

    def words(self) -> str:
        """The columns for messages."""
        texts = ", ".join(name for name in (self.text, self.long, self.label) if name) or "no text"
        boxes = self.box or (self.corners and ", ".join(self.corners))
        return f"image in {self.image!r}, text in {texts}{f', boxes in {boxes}' if boxes else ''}"


def columns(names: Sequence[str], options: Options) -> Columns | None:
    """Choose the columns of a table; None without one for images, or without one for texts or boxes."""
    image = _first((options.image_field,) if options.image_field else IMAGE_COLUMNS, names)
    if image is None:
        return None
    text = _first((options.text_field,) if options.text_field else TEXT_COLUMNS, names)
    corners = next((four for four in _CORNERS if set(four) <= set(names)), None)
    label = _first(_LABELS, names) if corners or "bbox" in names else None
    box = _first(("bbox", "objects", "bbox_info"), names)
    found = Columns(image, text, _first(_LONG, names), label, corners, box)
    return found if text or found.long or box or corners else None


def fields(
    rows: Sequence[Mapping[str, Any]], found: Columns, options: Options, categories: list[str] | None = None
) -> dict[str, Any]:
    """The fields of a record from the rows of one image."""
    regions = [one for row in rows for one in _regions(row, found, options, categories)]
    # A text beside the box of a row describes the box, unless a label does.
    of_boxes = (found.corners or found.box == "bbox") and not found.label
    texts = [] if of_boxes or not found.text else [text for row in rows for text in _texts(row.get(found.text))]
    made = captioned(list(dict.fromkeys(texts)))
    long = rows[0].get(found.long) if found.long else None
    if long:
        made["caption"] = long
    return made | ({"bbox_info": regions} if regions else {})


def _regions(row: Mapping[str, Any], found: Columns, options: Options, categories: list[str] | None) -> list[dict]:
    if found.corners:
        label = row.get(found.label) if found.label else None
        text = options.template.format(label) if label else str(row.get(found.text or "") or "")
        return [region([number(row.get(name)) for name in found.corners], text)]
    value = row.get(found.box) if found.box else None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = [value]
    if found.box == "bbox_info":
        return value if isinstance(value, list) else []
    if found.box == "objects":
        return objects(value, options, categories) if isinstance(value, Mapping | list) else []
    if not isinstance(value, list):
        return []
    label = row.get(found.label) if found.label else None
    if value and isinstance(value[0], list):  # several boxes with a list of labels
        return objects({"bbox": value, "category": label if isinstance(label, list) else []}, options, categories)
    text = options.template.format(label) if label else str(row.get(found.text or "") or "")
    return [region(value, text)]


def _first(wanted: Sequence[str | None], names: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _texts(value: Any) -> list[str]:
    """The captions in a cell: a text or a list of texts; a number is a text."""
    if isinstance(value, Mapping):  # Hugging Face: a list of objects is stored as lists by name
        return next((_texts(value[name]) for name in ("raw", "text", "caption") if name in value), [])
    if isinstance(value, list):
        return [text for entry in value for text in _texts(entry)]
    return [] if value is None else [str(value)]


def number(text: Any) -> Any:
    """The number that a cell holds as text, else the text."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return text
