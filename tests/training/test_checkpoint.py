"""Checkpoints: complete or missing, never torn; damage is found, named and passed over."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from fgclip_fast.files.whole_folder import DamagedError
from fgclip_fast.model import weights
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.training import checkpoint
from tests.models import MINI


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


def test_copies_under_other_names_are_no_checkpoints(tmp_path):
    saved = checkpoint.save(tmp_path, 8, save_model, {}, keep=1)
    for name in ("step-00000008-copy", "step-00000008.bak", "aside-step-00000009", "step-9", "step-0000000x"):
        shutil.copytree(saved, saved.with_name(name))
    (saved.parent / "step-00000010").mkdir()
    (saved.parent / "step-00000011").write_bytes(b"")
    assert checkpoint.every(tmp_path) == [saved]


def test_checkpoints_are_ordered_by_number(tmp_path):
    for step in (10**8, 99_999_999):
        checkpoint.save(tmp_path, step, save_model, {}, keep=9)
    assert [checkpoint.step_of(path) for path in checkpoint.every(tmp_path)] == [99_999_999, 10**8]


@pytest.mark.parametrize("harm", ["flipped", "cut"])
@pytest.mark.parametrize("name", ["model/weights", "state.safetensors", "state.json", "manifest.json"])
def test_a_damaged_newest_is_named_and_the_one_before_is_used(tmp_path, caplog, name, harm):
    good = checkpoint.save(tmp_path, 5, save_model, {"moment": torch.ones(3)}, keep=2)
    bad = checkpoint.save(tmp_path, 10, save_model, {"moment": torch.ones(3)}, keep=2)
    content = bytearray((bad / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bad / name).write_bytes(content if harm == "flipped" else content[: len(content) // 2])
    assert checkpoint.newest_sound(tmp_path) == good
    assert f"{bad / name} " in caplog.text and "the checkpoint before it is used" in caplog.text
    with pytest.raises(DamagedError):
        checkpoint.newest_sound(bad)  # asked for by name
    shutil.rmtree(good)
    with pytest.raises(DamagedError, match=r"none of the checkpoints of .* can be used"):
        checkpoint.newest_sound(tmp_path)


def test_damage_in_any_file_of_a_real_checkpoint_is_named_and_the_one_before_is_used(tmp_path, caplog):
    """One byte of each file is changed, and its last two are cut, one file after another."""
    model = FGCLIP(MINI)
    good, bad = (checkpoint.save(tmp_path, step, model.save, {"moment": torch.ones(3)}, keep=2) for step in (5, 10))
    files = [path for path in bad.rglob("*") if path.is_file()]
    assert len(files) > 8 and {"merges.txt", "model.safetensors", "state.safetensors"} <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 3] ^= 16
        for damaged in (bytes(flipped), content[:-2]):
            path.write_bytes(damaged)
            assert checkpoint.newest_sound(tmp_path) == good, path
            assert f"{path} " in caplog.text, path
            caplog.clear()
        path.write_bytes(content)
    assert checkpoint.newest_sound(tmp_path) == bad


def test_a_checkpoint_of_another_step_or_of_a_later_version_is_refused(tmp_path, monkeypatch):
    saved = checkpoint.save(tmp_path, 5, save_model, {}, keep=1)
    other = saved.rename(saved.with_name("step-00000006"))
    with pytest.raises(DamagedError, match="step-00000006 holds step 5"):
        checkpoint.verify(other)
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    later = checkpoint.save(tmp_path, 7, save_model, {}, keep=9)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has format 3, and this version reads 2"):
        checkpoint.verify(later)


def test_weights_of_a_damaged_checkpoint_are_not_read(tmp_path):
    def save(folder):
        folder.mkdir()
        weights.write_tensors(folder / weights.WEIGHTS, {"a": torch.ones(3)})
        (folder / "config.json").write_text("{}")

    saved = checkpoint.save(tmp_path, 5, save, {}, keep=1)
    path = saved / "model" / weights.WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedError, match=r"load: .*model.safetensors has other bytes .*; name the checkpoint before"):
        weights.read(weights.find(tmp_path))


def test_checkpoints_of_steps_that_are_done_anew_are_set_aside(tmp_path, caplog):
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, step, save_model, {}, keep=9)
    checkpoint.set_aside(tmp_path, after=5)
    assert [checkpoint.step_of(path) for path in checkpoint.every(tmp_path)] == [5]
    assert (tmp_path / "checkpoints" / "aside-step-00000015").is_dir() and "aside-step-00000010" in caplog.text


def test_no_pickle_is_written(tmp_path):
    saved = checkpoint.save(tmp_path, 5, save_model, {"a": {"b": torch.ones(2), "c": (1, None)}}, keep=1)
    names = sorted(str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file())
    assert names == ["manifest.json", "model/weights", "state.json", "state.safetensors"]
    assert checkpoint.load_state(saved)["a"]["c"] == [1, None]


@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"PK\x03\x04 cut short"])
def test_a_state_of_format_1_that_cannot_be_read_is_damage(tmp_path, content):
    folder = checkpoint.at(tmp_path, 5)
    folder.mkdir(parents=True)
    (folder / "state.pt").write_bytes(content)
    with pytest.raises(DamagedError, match=r"state.pt cannot be read"):
        checkpoint.verify(folder)


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    weights.write_tensors(tmp_path / "a.safetensors", {"a": torch.ones(3)})
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
    with pytest.raises(FileNotFoundError):
        weights.write_tensors(tmp_path / "none" / "a.safetensors", {"a": torch.ones(3)})


@pytest.mark.slow
def test_a_full_disk_at_any_write_of_a_real_save_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    """At each call that makes, fills, flushes or renames a file, one after another."""
    model = FGCLIP(MINI)
    state = {"optimizer": {"moment": torch.ones(3)}, "order": {}}
    calls = [(os, "mkdir"), (os, "fsync"), (os, "rename"), (os, "replace"), (safetensors.torch, "serialize_file")]
    calls += [(Path, name) for name in ("write_bytes", "write_text", "touch", "chmod")]

    def save(step):
        return checkpoint.save(tmp_path, step, model.save, state, keep=2)

    def full(at):
        count = [0]

        def patched(original):
            def call(*args, **more):
                count[0] += 1
                if count[0] == at:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return original(*args, **more)

            return call

        for owner, name in calls:
            monkeypatch.setattr(owner, name, patched(getattr(owner, name)))
        return count

    before = save(5)
    count = full(-1)
    shutil.rmtree(save(10))
    monkeypatch.undo()
    number = count[0]
    assert number > 40
    for at in range(1, number + 1):
        full(at)
        try:
            save(10)
        except OSError as error:
            assert error.errno == errno.ENOSPC
        else:  # the tokenizer's files are told to be missing, no more
            assert (checkpoint.at(tmp_path, 10) / "model" / weights.WEIGHTS).is_file()
        monkeypatch.undo()
        names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
        assert names <= {"step-00000005", "step-00000010"}, (at, names)
        for path in checkpoint.every(tmp_path):
            checkpoint.verify(path)
        assert before in checkpoint.every(tmp_path)
        shutil.rmtree(checkpoint.at(tmp_path, 10), ignore_errors=True)
