"""Config files: what is written is read back, and the message for each mistake."""

import dataclasses

import pytest

from fgclip_fast.config import Config, yaml_file
from fgclip_fast.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_its_file(name, tmp_path):
    yaml_file.save(PRESETS[name], tmp_path / "config.yaml")
    assert yaml_file.load(tmp_path / "config.yaml") == PRESETS[name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("los: {}", r"unknown key 'los'; the nearest is 'loss'"),
        ("loss: {hard_negatve: 1}", r"unknown key 'loss.hard_negatve'; the nearest is 'loss.hard_negative'"),
        ("batch_size: many", r"batch_size must be a valid integer, got 'many'"),
        ("batch_size: true", r"batch_size must be a valid integer, got True"),
        ("precision: fp8", r"precision must be 'auto', 'fp32' or 'bf16', got 'fp8'"),
        ("loss: {region: -1}", r"loss.region must be >= 0, got -1"),
        ("loss: {region: .nan}", r"loss.region must be >= 0, got nan"),
        ("[1, 2]", r"a config must be a mapping of fields, got list"),
        ("loss: 3", r"loss must be an object, got 3"),
        ("optim: {betas: [0, x]}", r"optim.betas.1 must be a valid number, got 'x'"),
        ("data: {train: 3}", r"data.train must be a valid string, got 3"),
        ("a: [1,", r"c.yaml is not YAML: .* line 1"),
        ("batch_size: -1", r"c.yaml: batch_size must be > 0, got -1"),
        (f"optim: {{lr: 1{'0' * 400}}}", r"c.yaml: optim.lr must be finite, got inf"),
    ],
)
def test_a_mistake_in_a_file_is_named(text, message, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        yaml_file.load(tmp_path / "c.yaml")


def test_numbers_as_yaml_writes_them_are_read(tmp_path):
    (tmp_path / "c.yaml").write_text("optim: {lr: 1e-6, betas: [0, 0.5]}\nsteps: null\n")
    config = yaml_file.load(tmp_path / "c.yaml", dataclasses.replace(Config(), steps=3))
    assert (config.optim.lr, config.optim.betas, config.steps) == (1e-6, (0.0, 0.5), None)
