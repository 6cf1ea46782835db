"""The evaluate command: suites, files and errors."""

import json

import pytest
import torch

from fgclip_fast import evaluate
from fgclip_fast.config import Model, Text, Vision
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    vision = Vision(image_size=32, patch_size=8, width=16, layers=2, heads=2, mlp=32)
    model = FGCLIP(Model(vision=vision, text=Text(width=16, layers=1, heads=2, mlp=32), projection=8))
    pretrained.save(model, tmp_path / "weights")
    return tmp_path / "weights"


def questions(folder, shards):
    from PIL import Image

    Image.effect_noise((64, 48), 80).convert("RGB").save(folder / "a.jpg")
    line = {"img_path": "a.jpg", "bbox": [1, 2, 30, 40], "width": 64, "height": 48, "pos_expression": ["a"]}
    for name in ("hard", "easy"):
        (folder / f"{name}.jsonl").write_text(json.dumps(line | {"neg_expression": ["b", "c"]}))


def test_fg_ovd_files_of_a_folder_are_evaluated_and_written(weights, tmp_path, shards, capsys):
    questions(tmp_path, shards)
    words = [str(weights), "--suite", "fg-ovd", "--data", str(tmp_path), "--images", str(tmp_path)]
    evaluate.main([*words, "--output", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures) == {"fg-ovd/hard", "fg-ovd/easy"} and figures["fg-ovd/hard"]["questions"] == 1
    assert "fg-ovd/hard" in capsys.readouterr().out


def test_records_of_any_shards(weights, shards, tmp_path):
    words = [str(weights), "--suite", "records", "--data", str(shards / "val-*.tar")]
    evaluate.main([*words, "--output", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())["records"]
    assert figures["images"] == 12 and 0 <= figures["hard_negative_top1"] <= 1


def test_figures_of_other_suites_are_kept(weights, shards, tmp_path):
    output = tmp_path / "figures.json"
    output.write_text('{"other": {"top1": 0.5}}')
    evaluate.main([str(weights), "--suite", "records", "--data", str(shards / "val-*.tar"), "--output", str(output)])
    assert set(json.loads(output.read_text())) == {"other", "records"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "fg-ovd"], "data: --suite fg-ovd needs --data"),
        (["--suite", "records"], "data: the run has no validation shards"),
        (["--suite", "fg-ovd", "--data", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_request_ends_with_one_line(weights, words, message):
    with pytest.raises(SystemExit, match=message):
        evaluate.main([str(weights), *words])


def test_no_weights_is_told(tmp_path):
    with pytest.raises(SystemExit, match="error: "):
        evaluate.main([str(tmp_path)])
