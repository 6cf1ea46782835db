"""Import annotations of COCO's size at two sizes: records a second should stay, and so should the memory.

python -m benchmarks.coco_size --images 29572 118287                # reads the annotations
python -m benchmarks.coco_size --images 7393 29572 --pictures       # makes images of 64 pixels, too, and shards
python -m benchmarks.coco_size --images 5000 --pictures --side 640

The JSON has the numbers of train2017: 7.27 boxes an image with polygons, and 5 captions. Images are made of noise.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from fgclip_fast.data.importers import import_records
from fgclip_fast.data.importers.formats import FORMATS
from fgclip_fast.data.importers.source import Options, Source
from fgclip_fast.data.processes import cores

_BOXES, _CAPTIONS, _POINTS = 7.27, 5, 22  # of an image, of an image, of a polygon


def coco_size(images: tuple[int, ...], *, pictures: bool = False, side: int = 64, folder: Path | None = None) -> None:
    """Measure at each size, in a process of its own.

    Args:
        images: numbers of images.
        pictures: make the images too, and measure the whole import; otherwise the annotations alone are read.
        side: longer side of an image, pixels.
        folder: for the files, which are deleted; by default that of temporary files.
    """
    work = _import if pictures else _read
    print("  images  JSON MB  records/s  of a core   MB  worker MB", flush=True)
    for count in images:
        with tempfile.TemporaryDirectory(dir=folder) as made:
            _write(Path(made), count, side, pictures)
            size = sum(file.stat().st_size for file in Path(made).glob("annotations/*")) / 1e6
            seconds, cpu, memory, worker = _in_process(work, made)
        print(f"{count:8,d} {size:8.0f} {count / seconds:10,.0f} {count / cpu:10,.0f} {memory:4.0f} {worker:10.0f}",
              flush=True)  # fmt: skip


def _read(folder: str) -> None:
    source = Source((Path(folder) / "annotations",))
    for _ in FORMATS["coco"].read(source, Options()):
        pass


def _import(folder: str) -> None:
    import_records(Path(folder) / "annotations", Path(folder) / "out", images=Path(folder) / "images", workers=cores())


def _in_process(work, folder: str) -> tuple[float, ...]:
    """Seconds, seconds of all cores, and the peak memory of a new process and of the largest of its workers, MB."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, work, folder).result()


def _measured(work, folder: str) -> tuple[float, ...]:
    start, used = time.perf_counter(), _usage()
    work(folder)
    seconds = time.perf_counter() - start
    cpu = sum(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
              for before, after in zip(used, _usage(), strict=True))  # fmt: skip
    return seconds, cpu, *(use.ru_maxrss / 1e3 for use in _usage())


def _usage() -> list[resource.struct_rusage]:
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


def _write(folder: Path, count: int, side: int, pictures: bool) -> None:
    random = np.random.default_rng(0)
    for name in ("images", "annotations"):
        (folder / name).mkdir()
    for i in range(count if pictures else 0):
        pixels = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        encoded = io.BytesIO()
        Image.fromarray(pixels).resize((side, side * 3 // 4)).save(encoded, "JPEG")
        (folder / "images" / f"{i:012d}.jpg").write_bytes(encoded.getvalue())
    things = {
        "annotations": _instances(count, side, random),
        "images": _images(count, side),
        "categories": _categories(),
    }
    captions = {"images": _images(count, side), "annotations": _captions(count)}
    _write_json(folder / "annotations" / "instances_train2017.json", things)
    _write_json(folder / "annotations" / "captions_train2017.json", captions)


def _write_json(file: Path, lists: dict[str, Iterator[dict]]) -> None:
    """Write an object of lists in one line, as COCO does, entry by entry."""
    with file.open("w") as opened:
        for i, (name, entries) in enumerate(lists.items()):
            opened.write(f'{"," if i else "{"}"{name}": [')
            for k, entry in enumerate(entries):
                opened.write(f"{',' if k else ''}{json.dumps(entry)}")
            opened.write("]")
        opened.write("}")


def _images(count: int, side: int) -> Iterator[dict]:
    for i in range(count):
        name = f"{i:012d}.jpg"
        yield {"license": 3, "file_name": name, "coco_url": f"http://images.cocodataset.org/train2017/{name}",
               "height": side * 3 // 4, "width": side, "date_captured": "2013-11-14 11:18:45", "id": i}  # fmt: skip


def _instances(count: int, side: int, random: np.random.Generator) -> Iterator[dict]:
    total = round(count * _BOXES)
    for i, image in enumerate(random.integers(0, count, total).tolist()):
        x, y = (random.random(2) * 0.6 * side * np.array([1, 0.75])).round(2).tolist()
        width, height = (random.random(2) * 0.3 * side + 1).round(2).tolist()
        polygon = (random.random(2 * _POINTS) * side).round(2).tolist()
        yield {"segmentation": [polygon], "area": width * height, "iscrowd": 0, "image_id": image,
               "bbox": [x, y, width, height], "category_id": i % 80, "id": i}  # fmt: skip


def _captions(count: int) -> Iterator[dict]:
    for i in range(count * _CAPTIONS):
        text = f"A person number {i} rides a bicycle down a street beside a row of parked cars."
        yield {"image_id": i % count, "id": i, "caption": text}


def _categories() -> Iterator[dict]:
    for i in range(80):
        yield {"supercategory": "thing", "id": i, "name": f"thing {i}"}


if __name__ == "__main__":
    tyro.cli(coco_size)
