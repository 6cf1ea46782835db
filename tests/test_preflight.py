"""Checks before a command starts: each mistake is named."""

from pathlib import Path

import pytest
import torch

from fgclip_fast import preflight


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_named():
    with pytest.raises(ValueError, match=r"device must be one that torch sees, got cuda:1 with 0 GPUs"):
        preflight.device("cuda:1")
    assert preflight.device("auto") == torch.device("cpu")


@pytest.mark.parametrize("pattern", ["", "{shards}/train-00000.tar::"], ids=["empty", "an empty part"])
def test_an_empty_pattern_of_shards_is_refused(pattern, shards):
    with pytest.raises(ValueError, match=r"data.train must name shards, got '.*'; pass --data.train 'folder/train-"):
        preflight.list_shards("data.train", pattern.format(shards=shards))


def test_shards_are_listed_and_missing_ones_named(shards):
    assert [path.name for path in preflight.list_shards("data.val", f"{shards}/val-*.tar")] == ["val-00000.tar"]
    with pytest.raises(FileNotFoundError, match=r"^data.val: shards: 'nosuch' names nosuch"):
        preflight.list_shards("data.val", "nosuch")


def test_an_output_must_be_a_file_in_an_existing_folder(tmp_path):
    preflight.check_output("output", tmp_path / "new.json")
    with pytest.raises(ValueError, match=r"output must be a file, got the folder"):
        preflight.check_output("output", tmp_path)
    with pytest.raises(ValueError, match=r"output must lie in an existing folder, got no/x.json"):
        preflight.check_output("output", Path("no/x.json"))


def test_auto_precision_follows_the_machine(monkeypatch):
    cpu = torch.device("cpu")
    assert preflight.precision("bf16", cpu) == "bf16" and preflight.precision("fp32", cpu) == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    for faster, slower in (("bf16", torch.float32), ("fp32", torch.bfloat16)):
        monkeypatch.setattr(preflight, "_product_seconds", lambda dtype, slower=slower: float(dtype == slower))
        assert preflight.precision("auto", cpu) == faster
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": True})
    assert preflight.precision("auto", cpu) == "bf16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {})
    assert preflight.precision("auto", cpu) == "fp32"


def test_the_measured_products_take_time():
    assert preflight._product_seconds(torch.float32) > 0 < preflight._product_seconds(torch.bfloat16)
