"""Provenance of a run."""

import json
import sys

from fgclip_fast.training import provenance


def test_a_resumed_run_lists_both_commands(tmp_path, monkeypatch):
    for words in (["train", "--text", "a b"], ["train", "--resume", "auto"]):
        monkeypatch.setattr(sys, "argv", words)
        provenance.write(tmp_path, steps=7)
    about = json.loads((tmp_path / provenance.PROVENANCE).read_text())
    assert [command[-13:].strip() for command in about["commands"]] == ["--text 'a b'", "--resume auto"]
    assert about["steps"] == 7 and "torch" in about["versions"]
