"""Folders written whole: a fault at any call leaves the one before, and nothing else; damage is found and named."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from fgclip_fast.files.whole_folder import (
    MANIFEST,
    DamagedError,
    current,
    remove_folder,
    replacing_folder,
    tidy,
    verified,
)

CALLS = [(os, "mkdir"), (os, "open"), (os, "fsync"), (os, "rename"), (Path, "write_bytes")]


def write(final, text):
    with replacing_folder(final, {"step": 7}) as folder:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_bytes(text)
        (folder / "state").write_bytes(text)


def text_of(final):
    assert verified(final)["step"] == 7
    return (final / "state").read_bytes()


def failing(monkeypatch, at, fault):
    """Let the call number ``at``, of all that write, raise ``fault``; return the list of calls."""
    calls = []

    def patched(owner, name):
        original = getattr(owner, name)

        def call(*args, **more):
            calls.append(name)
            if len(calls) == at + 1:
                raise fault
            return original(*args, **more)

        monkeypatch.setattr(owner, name, call)

    for owner, name in CALLS:
        patched(owner, name)
    return calls


def number_of_calls(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        calls = failing(patch, -2, None)
        write(tmp_path / "count", b"x")
        write(tmp_path / "count", b"x")
    shutil.rmtree(tmp_path / "count")
    return len(calls) // 2


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_fault_at_any_call_leaves_the_folder_before_and_nothing_else(tmp_path, fault):
    final = tmp_path / "step"
    write(final, b"before")
    count = number_of_calls(tmp_path)
    assert count > 12
    for at in range(count):
        with pytest.MonkeyPatch.context() as patch:
            failing(patch, at, fault)
            with pytest.raises(type(fault)):
                write(final, b"after")
        kept = text_of(final)
        if kept == b"after":  # all was written and named: the fault came when the names were flushed
            assert at >= count - 4
            shutil.rmtree(final)
            write(final, b"before")
        tidy(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["step"] and text_of(final) in (b"before", b"after")


def test_there_is_no_moment_without_the_folder(tmp_path, monkeypatch):
    """After each renaming, readers find one of the two; so does who comes after a kill there."""
    final, rename, seen, kills = tmp_path / "step", os.rename, [], []
    write(final, b"before")

    def then_look(*args):
        rename(*args)
        seen.append(text_of(current(final)))
        kills.append(shutil.copytree(tmp_path, f"{tmp_path}-{len(seen)}"))

    monkeypatch.setattr(os, "rename", then_look)
    write(final, b"after")
    monkeypatch.undo()
    assert seen == [b"before", b"after"]
    for killed in map(Path, kills):
        tidy(killed)
        assert [path.name for path in killed.iterdir()] == ["step"] and text_of(killed / "step")


def test_what_a_kill_left_is_cleared(tmp_path):
    write(tmp_path / "step", b"x")
    (tmp_path / ".step.partial").write_bytes(b"a file where a folder should be")
    (tmp_path / ".other.partial").mkdir()
    shutil.copytree(tmp_path / "step", tmp_path / ".lost.before")
    tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lost", "step"]
    write(tmp_path / "step", b"y")
    remove_folder(tmp_path / "step")
    assert [path.name for path in tmp_path.iterdir()] == ["lost"]


@pytest.mark.parametrize("name", ["model/weights", "state", MANIFEST])
@pytest.mark.parametrize("harm", ["flipped", "cut", "empty", "missing"])
def test_damage_is_found_and_named(tmp_path, name, harm):
    write(tmp_path / "step", b"0123456789")
    path = tmp_path / "step" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flipped": bytes(content), "cut": content[:-3], "empty": b"", "missing": b""}[harm])
    if harm == "missing":
        path.unlink()
    with pytest.raises(DamagedError, match=name):
        verified(tmp_path / "step")
