"""LabelMe's JSON: a file for each image, with the image beside it or inside."""

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from fgclip_fast.data.causes import NOT_JSON, NOT_UTF8, WRONG_TYPE, BadRecord
from fgclip_fast.data.importers.source import (
    TRIED,
    ImageFile,
    Options,
    Source,
    SourceRecord,
    around,
    class_text,
    head,
    image_file,
    region,
    stated_size,
)

_SHAPES = re.compile(rb'"shapes"\s*:\s*\[')
_NO_AREA = ("point", "points", "line", "linestrip")


class LabelMeImage(NamedTuple):
    """An image beside an annotation, or, if no file is found, the one in the field ``imageData``."""

    file: ImageFile
    annotation: Path

    def read(self) -> bytes:
        """Return the image file's bytes."""
        try:
            return self.file.read()
        except BadRecord:
            data = json.loads(self.annotation.read_bytes()).get("imageData")
            if not isinstance(data, str):
                raise
            return base64.b64decode(data)


def recognise(source: Source, options: Options) -> str | None:
    """Evidence that the source holds LabelMe's JSON."""
    files = source.ending(".json")
    first = next((file for file in islice(files, TRIED) if _is_labelme(file)), None)
    return f"{len(files)} JSON files, {first.name} with 'shapes' of one image" if first else None


def read(source: Source, options: Options) -> Iterator[SourceRecord]:
    """Read the annotation of each file; other JSON files are passed by."""
    for file in source.ending(".json"):
        place = file.stem, file.name, 1
        try:
            fields = json.loads(file.read_text("utf-8-sig"))
        except UnicodeDecodeError as error:
            yield SourceRecord(*place, None, None, bad=(NOT_UTF8, f"byte {error.start}"))
            continue
        except (ValueError, RecursionError) as error:
            yield SourceRecord(*place, None, None, bad=(NOT_JSON, str(error)))
            continue
        if isinstance(fields, Mapping) and "shapes" in fields:
            yield _record(file, fields, options)


def _is_labelme(file: Path) -> bool:
    beginning = head(file)
    return bool(_SHAPES.search(beginning)) and any(
        name in beginning for name in (b'"imagePath"', b'"shape_type"', b'"imageData"')
    )


def _record(file: Path, fields: Mapping[str, Any], options: Options) -> SourceRecord:
    shapes = fields["shapes"] if isinstance(fields["shapes"], list) else []
    name = str(fields.get("imagePath") or "").replace("\\", "/") or f"{file.stem}.jpg"
    if not all(isinstance(shape, Mapping) for shape in shapes):
        return SourceRecord(name, file.name, 1, None, None, bad=(WRONG_TYPE, "a shape must be an object"))
    boxed = [shape for shape in shapes if shape.get("shape_type") not in _NO_AREA]
    made = {"bbox_info": [region(_box(shape), _text(shape, options)) for shape in boxed]}
    size = stated_size({side: fields.get(f"image{side.title()}") for side in ("width", "height")})
    found = image_file(options, file, *dict.fromkeys((name, Path(name).name)))
    return SourceRecord(name, file.name, 1, LabelMeImage(found, file), made, size)


def _box(shape: Mapping[str, Any]) -> list[Any]:
    """The box around a rectangle, polygon or mask, whose corners are points, or around a circle."""
    points = shape.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        return [json.dumps(points)]
    numbers = all(isinstance(side, int | float) for point in points for side in point)
    if shape.get("shape_type") == "circle" and len(points) == 2 and numbers:
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        return [x - radius, y - radius, x + radius, y + radius]
    if shape.get("shape_type") == "mask" and len(points) == 2 and numbers:
        points = [points[0], [side + 1 for side in points[1]]]  # the last pixels, which are inside
    return around([(x, y) for x, y in points])


def _text(shape: Mapping[str, Any], options: Options) -> str:
    text = shape.get(options.text_field or "description")
    return text if isinstance(text, str) and text.strip() else class_text(str(shape.get("label") or ""), options)
