"""Checkpoints that earlier versions wrote are gone on from, with the losses that those versions went on to have.

``golden/checkpoints/format-0.tar.xz`` was written before 26 November 2026, with the optimizer's parameters by number;
``format-1.tar.xz`` before the manifest, with them by name. Each holds the shard, a run of four steps and its checkpoint
after the second, without the tokenizer's files.
"""

import json
import tarfile
from pathlib import Path

import pytest

from fgclip_fast.config import Config, Data, Optim
from fgclip_fast.config.model import Model, Text, Vision
from fgclip_fast.train import train
from fgclip_fast.training import checkpoint

GOLDEN = Path(__file__).parents[1] / "golden" / "checkpoints"
MODEL = Model(
    vision=Vision(image_size=16, patch_size=8, width=4, layers=1, heads=1, mlp=8),
    text=Text(width=4, layers=1, heads=1, mlp=8),
    projection=4,
)


def figures(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: (line["total"], line["grad_norm"]) for line in lines if line["kind"] == "train"}


@pytest.fixture(params=["format-0", "format-1"])
def older(request, tmp_path, monkeypatch):
    with tarfile.open(GOLDEN / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return Config(
        model=MODEL, data=Data(train="train.tar", val="", workers=0), optim=Optim(lr=3e-3, warmup=0), batch_size=4,
        steps=4, output="run", resume="auto", device="cpu", threads=1,
    )  # fmt: skip


def test_a_run_of_an_earlier_version_goes_on(older):
    before = figures(Path("run"))
    assert list(before) == [1, 2, 3, 4]
    run = train(older)
    after = figures(run.path)
    assert after.keys() == before.keys()
    for step, values in before.items():
        assert after[step] == pytest.approx(values, rel=1e-3), step
    newest = checkpoint.newest_sound(run.path)
    assert newest.name == "step-00000004" and (newest / "manifest.json").is_file()


def test_shards_of_other_content_are_refused_by_what_stood_beside_the_checkpoint(older):
    Path("train.tar.index").unlink(missing_ok=True)
    Path("train.tar").write_bytes(Path("train.tar").read_bytes() + bytes(10240))
    with pytest.raises(ValueError, match=r"resume: the content of data.train was .*30720"):
        train(older)
