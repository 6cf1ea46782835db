"""Checkpoints: complete or missing, never torn."""

import pytest
import torch

from fgclip_fast.training import checkpoint


def save_model(folder):
    folder.mkdir()
    (folder / "weights").write_bytes(b"w")


def test_state_comes_back_as_it_was(tmp_path):
    state = {"optimizer": {"moment": torch.arange(3.0)}, "order": {"seed": 1}}
    saved = checkpoint.save(tmp_path, 7, save_model, state, keep=2)
    loaded = checkpoint.load_state(saved)
    assert loaded["step"] == 7 and loaded["order"] == {"seed": 1}
    assert torch.equal(loaded["optimizer"]["moment"], torch.arange(3.0))
    assert (saved / "model" / "weights").read_bytes() == b"w"


def test_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, step, save_model, {}, keep=2)
    assert [p.name for p in checkpoint.every(tmp_path)] == ["step-00000010", "step-00000015"]


def test_a_save_that_dies_leaves_the_one_before(tmp_path):
    good = checkpoint.save(tmp_path, 5, save_model, {}, keep=1)

    def dies(folder):
        folder.mkdir()
        (folder / "half").write_bytes(b"h")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 10, dies, {}, keep=1)
    assert checkpoint.newest(tmp_path) == good
    again = checkpoint.save(tmp_path, 10, save_model, {}, keep=1)  # over the half-written one
    assert checkpoint.newest(tmp_path) == again and not (again / "model" / "half").exists()


def test_the_same_step_may_be_saved_twice(tmp_path):
    checkpoint.save(tmp_path, 5, save_model, {"a": 1}, keep=1)
    checkpoint.save(tmp_path, 5, save_model, {"a": 2}, keep=1)
    assert checkpoint.load_state(checkpoint.newest(tmp_path))["a"] == 2


def test_newest_takes_a_run_or_a_checkpoint(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    saved = checkpoint.save(tmp_path, 5, save_model, {}, keep=1)
    assert checkpoint.newest(tmp_path) == checkpoint.newest(saved) == saved
