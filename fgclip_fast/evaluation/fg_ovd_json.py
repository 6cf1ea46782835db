"""FG-OVD's official files: JSON in LVIS's layout, with captions and negatives as categories."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fgclip_fast.evaluation.boxes import coco, image_name


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Read the questions of a file, each as a line of the converted files has it.

    An annotation that names an unknown image or category gives a record that lacks fields.

    Raises:
        ValueError: the file is not JSON in LVIS's layout.
        OSError: it cannot be read.
    """
    whole = coco(path)
    names = {category["id"]: category.get("name") for category in whole["categories"]}
    images = {image["id"]: image for image in whole["images"]}
    for annotation in whole["annotations"]:
        image = images.get(annotation.get("image_id"))
        if image is None or annotation.get("category_id") not in names:
            yield {}
            continue
        negatives = [names.get(negative) for negative in annotation.get("neg_category_ids") or ()]
        yield {
            "img_path": image_name(image),
            "bbox": annotation.get("bbox"),
            "width": image.get("width"),
            "height": image.get("height"),
            "pos_expression": names[annotation["category_id"]],
            "neg_expression": negatives,
        }
