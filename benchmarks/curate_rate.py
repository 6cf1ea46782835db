"""Records and regions a minute through each stage of curation that asks no model.

python -m benchmarks.curate_rate --records 2000 --workers 2

The records are rendered scenes enlarged to 640 x 480, with their true captions and boxes, and no negatives. Times
include the start of each stage's processes; with few records that weighs much.
"""

import argparse
import io
import json
import os
import platform
import tempfile
import time
from collections import Counter
from pathlib import Path

from PIL import Image

from fgclip_fast.curate import Negatives
from fgclip_fast.curate.filters import Filter
from fgclip_fast.curate.finished import Shards
from fgclip_fast.curate.phrases import Phrases
from fgclip_fast.curate.recipe import Recipe, run_recipe
from fgclip_fast.scenes.write import jpeg, record_of, scene_of

SIZE, SHARD = (640, 480), 250
STAGES = (Phrases(), Negatives(), Filter(), Shards(val=0.05))


def main() -> None:
    """Write the photographs, run the stages, and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="folder for photographs and shards; else one that is deleted")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        regions = write_photographs(folder / "photos", chosen.records)
        print(table(timed(folder, chosen.workers), chosen.records, regions))
    print(f"\n{chosen.workers} workers, {os.cpu_count()} cores, {platform.processor() or platform.machine()}")


def write_photographs(folder: Path, count: int) -> int:
    """Write images with their records beside them, if they are not there; return the number of regions."""
    folder.mkdir(parents=True, exist_ok=True)
    regions = 0
    for i in range(count):
        scene = scene_of("train", i)
        fields = record_of(scene, "train", i)
        regions += len(fields["bbox_info"])
        for region in fields["bbox_info"]:
            region.pop("short_expr_negs", None)
            region.pop("flag_short_neg", None)
        path = folder / f"{i:06d}.jpg"
        if not path.exists():
            image, buffer = Image.open(io.BytesIO(jpeg(scene))).resize(SIZE, Image.Resampling.BICUBIC), io.BytesIO()
            image.save(buffer, "JPEG", quality=90)
            path.with_suffix(".json").write_text(json.dumps(fields))
            path.write_bytes(buffer.getvalue())
    return regions


def timed(folder: Path, workers: int) -> dict[str, float]:
    """Seconds of each stage."""
    seconds: dict[str, float] = {}
    last = time.perf_counter()

    def told(name: str, _: Path, counts: Counter[str]) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[name], last = now - last, now

    run_recipe(Recipe(str(folder / "photos"), folder / "stages", STAGES, SHARD), workers=workers, told=told)
    return seconds


def table(seconds: dict[str, float], records: int, regions: int) -> str:
    """Rates, a stage a line."""
    rows = [["stage", "seconds", "records a minute", "regions a minute"], ["---"] * 4]
    for name, spent in [*seconds.items(), ("all", sum(seconds.values()))]:
        rows.append([name, f"{spent:.1f}", *(f"{60 * count / spent:,.0f}" for count in (records, regions))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
