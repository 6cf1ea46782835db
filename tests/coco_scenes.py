"""Scenes as a user would bring them: photographs in a folder, COCO's annotations, and a share of flaws."""

import io
import json
from pathlib import Path

from PIL import Image

from fgclip_fast.data.shards import Shard
from fgclip_fast.scenes.write import write_scenes

SCENES = 60
FLAWS = {"truncated image": 2, "no image": 1, "empty box": 1, "box outside the image": 1}
"""Number of records left out and regions dropped, by cause."""


def write_coco(folder: Path) -> None:
    """Write ``photos/`` and ``annotations/`` with instances and captions; of each scene the text is known to be true.

    Two images are cut off, one is missing, one is stored lying on its side with a note to turn it, one is there twice.
    """
    write_scenes(folder / "scenes", train=SCENES, val=0, workers=1)
    (folder / "photos").mkdir()
    (folder / "annotations").mkdir()
    images, instances, captions = [], [], []
    records = [sample for path in sorted((folder / "scenes").glob("train-*.tar")) for sample in _samples(path)]
    for i, (encoded, fields) in enumerate(records):
        width, height = Image.open(io.BytesIO(encoded)).size
        images.append({"id": i, "file_name": f"{i}.jpg", "width": width, "height": height})
        captions.append({"id": i, "image_id": i, "caption": fields["short_caption"]})
        for region in fields["bbox_info"]:
            x0, y0, x1, y1 = region["bbox"][:4]
            box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
            one = {"id": len(instances), "image_id": i, "category_id": 1, "bbox": box, "caption": region["short_expr"]}
            instances.append(one)
        _write_photo(folder / "photos" / f"{i}.jpg", i, encoded)
    instances[0]["bbox"] = [5, 5, 0, 10]
    instances[1]["bbox"] = [500, 500, 20, 20]
    images.append({**images[-1], "id": SCENES, "file_name": "again.jpg"})
    captions.append({"id": SCENES, "image_id": SCENES, "caption": "the same again"})
    (folder / "photos" / "again.jpg").write_bytes(records[-1][0])
    things = {"images": images, "categories": [{"id": 1, "name": "thing"}], "annotations": instances}
    (folder / "annotations" / "instances.json").write_text(json.dumps(things))
    (folder / "annotations" / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))


def _samples(path: Path) -> list[tuple[bytes, dict]]:
    shard = Shard(path)
    parts = [shard.read(i).parts for i in range(len(shard))]
    return [(part["jpg"], json.loads(part["json"])) for part in parts]


def _write_photo(path: Path, number: int, encoded: bytes) -> None:
    if number in (3, 4):
        path.write_bytes(encoded[: len(encoded) // 2])
    elif number == 6:
        image = Image.open(io.BytesIO(encoded))
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by a quarter, clockwise
        image.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)
    elif number != 5:
        path.write_bytes(encoded)
