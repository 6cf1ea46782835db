"""Every example runs, on data that it makes itself."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from fgclip_fast.model.fgclip import FGCLIP
from tests.models import MINI

EXAMPLES = Path(__file__).parents[1] / "examples"


def names_of(example: str) -> dict[str, Any]:
    """What an example defines, without its main guard."""
    return runpy.run_path(str(EXAMPLES / f"{example}.py"))


@pytest.fixture
def model() -> FGCLIP:
    return FGCLIP(MINI)


def test_a_loop_of_ones_own_trains(shards, capsys):
    names_of("own_loop")["main"](str(shards / "train-*.tar"), steps=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["0", "total"], ["1", "total"]]


def test_the_losses_train_an_open_clip_model():
    pytest.importorskip("open_clip")
    assert names_of("ops_in_open_clip")["main"](steps=30) > 0.8


def test_fg_ovd_prints_an_accuracy_for_each_file(tmp_path, model, capsys):
    from fgclip_fast.scenes.write import write_scenes

    write_scenes(tmp_path, train=0, val=6, workers=1)
    accuracy = names_of("fg_ovd")["main"](model, tmp_path / "levels" / "unseen", tmp_path / "levels" / "images")
    assert {"hard", "medium", "easy", "trivial"} <= accuracy.keys()
    assert len(capsys.readouterr().out.splitlines()) == len(accuracy)


def test_fine_tuning_raises_the_accuracy(tmp_path):
    before, after = names_of("finetune_your_data")["main"](tmp_path, steps=25)
    assert after > before


def test_a_region_search_finds_the_box_of_a_text(tmp_path, model):
    from PIL import Image

    example = names_of("heatmap")
    found = example["main"](model, Image.new("RGB", (80, 60), "red"), "a red mug", tmp_path / "heat.png")
    assert (tmp_path / "heat.png").stat().st_size > 0
    assert all(0 <= side <= 1 for box, _ in found for side in box)
    assert [cosine for _, cosine in found] == sorted((cosine for _, cosine in found), reverse=True)
    every = model.encode_regions([Image.new("RGB", (80, 60), "red")], [example["candidates"]()], unit="fraction")
    assert found[0][1] == pytest.approx((every @ model.encode_text(["a red mug"])[0]).max().item(), abs=1e-6)


def test_examples_are_all_run_here():
    named = {
        line.split('"')[1] for line in Path(__file__).read_text().splitlines() if "names_of(" in line and '"' in line
    }
    assert {file.stem for file in EXAMPLES.glob("*.py")} <= named
