"""Small shards and folders of images for the tests of stages."""

import io
import json

from PIL import Image

from fgclip_fast.data.shards import Shard, ShardWriter


def jpeg(colour=(200, 30, 30), size=(64, 48), quality=90):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write(path, *records, images=None):
    """Write a shard with a record, and an image of another colour, for each argument."""
    with ShardWriter(path) as shard:
        for number, fields in enumerate(records):
            image = images[number] if images else jpeg((40 * number % 256, 90 * number % 256, 150))
            shard.write(f"{number:04d}", jpg=image, json=json.dumps(fields).encode())
    return path


def records(folder):
    """The records of all shards of a folder."""
    shards = [Shard(path) for path in sorted(folder.glob("*.tar"))]
    return [json.loads(shard.read(i).parts["json"]) for shard in shards for i in range(len(shard))]


def contents(folder):
    """Name → bytes of the shards of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def region(text, box=(0.1, 0.1, 0.6, 0.6), **fields):
    return {"bbox": list(box), "short_expr": text, "long_expr": text, **fields}
