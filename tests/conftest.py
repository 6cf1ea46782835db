"""What all tests share: where ops run, an empty cache of their own, small shards."""

import io
import json
import os
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

# Triton runs in its interpreter where there is no GPU; this must be set before anything imports Triton.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
# No test times kernels to choose one: the choice would change between runs, and with it the last bits.
os.environ["FGCLIP_AUTOTUNE"] = "0"
# Each of pytest-xdist's workers takes its share of the cores.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    torch.set_num_threads(max(1, torch.get_num_threads() // int(workers)))


# Weights that a test leaves to chance must not depend on the tests before it, which pytest-xdist deals out anew in each
# run: a failure would not come again. So each fixture, whatever its scope, and each test starts from a seed of its own.
# An autouse fixture would not do: fixtures of a module or a session come before it.
@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> None:
    """Seed before a fixture is made."""
    _seed(fixturedef.argname)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Seed before a test runs."""
    _seed(item.name)


def _seed(name: str) -> None:
    """Seed what draws numbers without a generator of its own; by name, so that no two models are equal by chance."""
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the package from reading or writing the user's cache; pip keeps its own, which it needs."""
    with pytest.MonkeyPatch.context() as patch:
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        if "PIP_CACHE_DIR" not in os.environ:
            patch.setenv("PIP_CACHE_DIR", f"{cache}/pip")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def device() -> torch.device:
    """Where ops are tested: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small training and validation shards: coloured squares, with captions, boxes and negatives."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(3):
        _write_shard(folder / f"train-{number:05d}.tar", range(20 * number, 20 * number + 20))
    _write_shard(folder / "val-00000.tar", range(100, 112))
    return folder


COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "white": (240, 240, 240)}


def _write_shard(path: Path, keys: range) -> None:
    from fgclip_fast.data.shards import ShardWriter

    with ShardWriter(path) as shard:
        for key in keys:
            record, image = _record(key)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=92)
            shard.write(f"{key:06d}", jpg=buffer.getvalue(), json=json.dumps(record).encode())


def _record(key: int) -> tuple[dict, Image.Image]:
    """Two squares side by side; every fifth image has no regions, every fourth region no negatives."""
    left, right = (list(COLOURS)[(key * step) % 4] for step in (1, 3))
    image = Image.new("RGB", (64, 48), (90, 90, 90))
    ImageDraw.Draw(image).rectangle((4, 8, 27, 39), fill=COLOURS[left])
    ImageDraw.Draw(image).rectangle((36, 8, 59, 39), fill=COLOURS[right])
    regions = []
    for place, (colour, box) in enumerate(((left, [0.05, 0.15, 0.45, 0.85]), (right, [0.55, 0.15, 0.95, 0.85]))):
        negatives = {str(i): f"a {other} square" for i, other in enumerate(c for c in COLOURS if c != colour)}
        flag = int((key + place) % 4 != 0)
        regions.append(
            {"bbox": box, "short_expr": f"a {colour} square", "long_expr": f"a plain {colour} square on grey",
             "flag_short_neg": flag, "short_expr_negs": negatives if flag else {}}
        )  # fmt: skip
    short = f"a {left} and a {right} square"
    caption = f"The picture shows a {left} square on the left and a {right} square on the right of a grey ground."
    record = {"f_path": f"{key:06d}.jpg", "short_caption": short, "caption": caption}
    return {**record, "bbox_info": regions if key % 5 else []}, image
