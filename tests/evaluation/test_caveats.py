"""Warnings: inputs that are not the model's, paths that were never trained, validation images that training has."""

import io
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageDraw

from fgclip_fast import evaluate_warnings
from fgclip_fast.data.shards import ShardWriter
from fgclip_fast.evaluation import caveats
from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.evaluation.leakage import leak
from fgclip_fast.evaluation.share import Share
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.positions import stretch
from tests.models import MINI


@pytest.fixture
def whole(tmp_path):
    torch.manual_seed(0)
    FGCLIP(MINI).save(tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def folder(whole):
    """Without the large files of the tokenizer, which take long to read."""
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (whole / name).unlink()
    return whole


def changed(folder, name, **fields):
    path = folder / name
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **fields}))


def told(folder):
    return caveats.unlike_files(folder, pretrained.load(folder))


def test_a_folder_as_saved_is_asked_as_it_says(whole):
    assert told(whole) == []


@pytest.mark.parametrize(
    "size", [{"size": {"height": 64, "width": 64}}, {"size": 64}, {"size": {"shortest_edge": 64}},
             {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"height": 64, "width": 64}}]
)  # fmt: skip
def test_another_resolution_is_told(folder, size):
    changed(folder, "preprocessor_config.json", **size)
    assert told(folder) == ["images of 64 pixels by its processor, 32 here"]


def test_another_normalisation_is_told(folder):
    changed(folder, "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    assert len(told(folder)) == 1 and "pixels normalised by the mean [0.5, 0.5, 0.5]" in told(folder)[0]
    changed(folder, "preprocessor_config.json", image_mean=[0.48145, 0.45783, 0.40821], do_normalize=False)
    assert told(folder) == ["pixels that are not normalised, normalised here"]


def test_another_text_length_is_told_and_none_is_not(folder):
    changed(folder, "tokenizer_config.json", model_max_length=64)
    assert told(folder) == ["texts of 64 tokens by its tokenizer, 77 and 248 here"]
    changed(folder, "tokenizer_config.json", model_max_length=10**30)
    assert told(folder) == []


def test_another_tokenizer_is_told_unless_its_merges_are_used(whole):
    stored = json.loads((whole / "tokenizer.json").read_text())
    stored["model"]["merges"][:2] = stored["model"]["merges"][1::-1]
    (whole / "tokenizer.json").write_text(json.dumps(stored))
    other = "another tokenizer: the merges of tokenizer.json are not those of {}, which are used"
    assert told(whole) == [other.format("merges.txt")]
    (whole / "merges.txt").unlink()
    assert told(whole) == [other.format("open_clip")]
    lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in stored["model"]["merges"]]
    (whole / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    assert told(whole) == []


def test_another_activation_of_a_second_config_is_told(folder):
    changed(folder, "open_clip_config.json", model_cfg={"quick_gelu": False})
    assert told(folder) == ["activation gelu by one of its configs, quick_gelu here"]
    changed(folder, "open_clip_config.json", model_cfg={"quick_gelu": True}, preprocess_cfg={"size": [48, 48]})
    (folder / "preprocessor_config.json").unlink()
    assert told(folder) == ["images of 48 pixels by its processor, 32 here"]


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"size": {}, "image_mean": "x"}', '{"model": {"merges": 3}}'])
def test_files_that_tell_nothing_are_passed_over(folder, content):
    for name in ("preprocessor_config.json", "tokenizer_config.json", "tokenizer.json", "open_clip_config.json"):
        (folder / name).write_text(content)
    assert told(folder) == []


def test_two_models_are_compared():
    one = FGCLIP(MINI)
    assert caveats.unlike(one, FGCLIP(MINI)) == []
    other = FGCLIP(replace(MINI, activation="gelu", vision=replace(MINI.vision, image_size=48)))
    assert caveats.unlike(one, other) == [
        "images of 32 pixels against images of 48 pixels",
        "activation quick_gelu against activation gelu",
    ]


def test_a_stretched_table_is_told_of_by_suites_of_long_texts_alone(caplog):
    model = FGCLIP(MINI)
    tables = model.text_model.embeddings
    tables.position_embedding_res.weight.data.add_(0.1)
    found = {
        "retrieval/dci": Figures(values={}, asked=1, protocol="dci: long text path"),
        "retrieval/coco": Figures(values={}, asked=1, protocol="coco: short text path"),
    }
    evaluate_warnings.of_long_texts("m", model, found)
    assert not caplog.text, "a table of its own"
    tables.position_embedding_res.weight.data.copy_(stretch(tables.position_embedding.weight.data))
    evaluate_warnings.of_long_texts("m", model, {"retrieval/coco": found["retrieval/coco"]})
    assert not caplog.text
    evaluate_warnings.of_long_texts("m", model, found)
    assert "texts of 77 tokens; retrieval/dci asked its stretched" in caplog.text


def picture(number, side=96, suffix="PNG"):
    image = Image.new("RGB", (96, 96), (200 - 20 * number, 60, 20 * number))
    ImageDraw.Draw(image).ellipse((8 * number, 10, 40 + 8 * number, 90 - 9 * number), fill=(255, 255, 20 * number))
    buffer = io.BytesIO()
    image.resize((side, side)).save(buffer, suffix, quality=90)
    return buffer.getvalue()


def shard(path, *images):
    with ShardWriter(path) as writer:
        for number, image in enumerate(images):
            writer.write(f"{number:06d}", jpg=image, json=json.dumps({"short_caption": "it"}).encode())
    return path


def test_validation_images_that_training_has_are_found(tmp_path, caplog):
    training = shard(tmp_path / "train.tar", *map(picture, range(4)), b"broken")
    held_out = shard(tmp_path / "val.tar", picture(6), picture(2), picture(3, 150, "JPEG"), picture(7))
    found = leak([training], [held_out], Share())
    assert (found.images, found.seen) == (4, 2) and found.example == "val.tar:1 and train.tar:2"
    evaluate_warnings.of_leak(str(training), str(held_out), Share())
    assert "2 of 4 validation images are also in training" in caplog.text


def test_clean_sets_large_sets_and_missing_shards_are_not_warned_of(tmp_path, caplog, monkeypatch):
    training = shard(tmp_path / "train.tar", *map(picture, range(3)))
    held_out = shard(tmp_path / "val.tar", picture(5), picture(6))
    caplog.set_level("INFO")
    evaluate_warnings.of_leak(str(training), str(held_out), Share())
    evaluate_warnings.of_leak(str(tmp_path / "gone.tar"), str(held_out), Share())
    assert not caplog.text
    monkeypatch.setattr(evaluate_warnings, "COMPARED", 4)
    evaluate_warnings.of_leak(str(training), str(training), Share())
    assert "are not compared here" in caplog.text
