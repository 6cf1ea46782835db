"""The six commands of the page on fine-tuning, as it has them, on scenes in COCO's format with flaws."""

import csv
import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
import torch

from fgclip_fast import __main__ as fgclip
from fgclip_fast.model.fgclip import FGCLIP
from tests import coco_scenes
from tests.models import SMALL

PAGE = Path(__file__).parents[1] / "docs" / "fine-tune.md"
# Arguments for a tiny model on a CPU; the page's own stay as they are.
SMALLER = {
    "import": "--orientation upright --workers 1",
    "negatives": "--workers 1",
    "inspect": "--workers 1",
    "train": "--epochs 1 --batch-size 8 --data.workers 0 --device cpu --precision fp32 --threads 1",
    "evaluate": "--device cpu",
    "embed": "--device cpu",
}


def commands():
    """Commands of the page's first six steps."""
    page = PAGE.read_text().partition("\n## ")[0]
    return [line for block in re.findall(r"```\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module")
def afternoon(tmp_path_factory):
    """The folder in which all commands have run."""
    folder = tmp_path_factory.mktemp("afternoon")
    coco_scenes.write_coco(folder)
    torch.manual_seed(0)
    FGCLIP(SMALL).save(folder / "fg-clip-base")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in commands():
            words = shlex.split(line)
            assert words[:2] == ["python", "-m"]
            name = next(name for name in SMALLER if name in line.split()[2].split(".") or name in line.split()[:4])
            fgclip._main_of(words[2].removeprefix("fgclip_fast."))([*words[3:], *shlex.split(SMALLER[name])])
    return folder


def test_what_was_left_out_is_named(afternoon):
    with (afternoon / "mine" / "refused.csv").open() as lines:
        causes = Counter(line["cause"] for line in csv.DictReader(lines))
    assert causes == coco_scenes.FLAWS


def test_every_region_has_negatives_and_a_page_shows_them(afternoon):
    report = json.loads((afternoon / "ready" / "negatives.json").read_text())
    assert report
    page = (afternoon / "ready" / "inspect.html").read_text()
    assert len(page) > 100_000 and "Refused by the import" in page and "3.jpg (captions.json, line 4)" in page


def test_the_run_is_evaluated_before_and_after(afternoon):
    after = json.loads((afternoon / "runs" / "mine" / "evaluation.json").read_text())["records"]
    before = after["against"]["figures"]
    assert before["hard_negative_top1"] is not None and after["hard_negative_top1"] is not None
    assert before["loss_total"] != after["loss_total"] and after["against"]["weights"] == "init"
    assert (afternoon / "runs" / "mine" / "report.html").is_file() and (afternoon / "runs/mine/best").exists()


def test_all_images_that_can_be_read_are_embedded(afternoon):
    import numpy

    kept = numpy.load(afternoon / "embeddings.npz")
    assert max(len(kept[name]) for name in kept.files) == coco_scenes.SCENES + 1 - 3
