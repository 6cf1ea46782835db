"""The table of ways to fine-tune: its pictures, one of its ways from the command to the table, and no way twice."""

import json
import sys
from dataclasses import replace

import pytest

from benchmarks import finetune_table
from fgclip_fast.data.records import parse_sample
from fgclip_fast.data.shards import Shard, expand
from fgclip_fast.model.fgclip import FGCLIP
from tests.models import SMALL


@pytest.mark.slow
def test_a_way_is_measured_before_and_after_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(finetune_table, "TRAIN", 8)
    monkeypatch.setattr(finetune_table, "VAL", 4)
    way = replace(finetune_table.FULL, batch_size=4, epochs=1)
    monkeypatch.setattr(finetune_table, "WAYS", {"all weights": way})
    # The embedded set takes a minute to write; its questions have tests of their own.
    monkeypatch.setattr(finetune_table, "levels_of", lambda *_: dict.fromkeys(finetune_table.LEVELS, 0.5))
    FGCLIP(SMALL).save(tmp_path / "start")
    monkeypatch.setattr(sys, "argv", ["finetune_table", str(tmp_path / "start"), "--output", str(tmp_path / "table")])
    finetune_table.main()
    first = capsys.readouterr().out
    header, _, before, after = [line for line in first.splitlines() if line.startswith("|")]
    assert header == "|  | new pictures | hard | medium | easy | noun | colour | core minutes |"
    assert before.startswith("| before | ") and before.endswith("| 50.0 | 50.0 | 50.0 | 50.0 | 50.0 |  |")
    assert after.startswith("| all weights | ")
    trained = json.loads((tmp_path / "table" / "0.json").read_text())
    assert 0 <= trained["new"] <= 1 and trained["minutes"] > 0
    monkeypatch.setattr(finetune_table, "train", pytest.fail)
    finetune_table.main()
    assert capsys.readouterr().out.splitlines()[-6:-2] == [header, _, before, after]


def test_the_held_out_pictures_are_others_and_each_region_has_negatives(tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_table, "TRAIN", 3)
    monkeypatch.setattr(finetune_table, "VAL", 2)
    finetune_table.write_pictures(tmp_path)
    train, val = (
        [shard.read(i) for i in range(len(shard))]
        for shard in (Shard(path) for path in expand(f"{tmp_path}/train-*.tar") + expand(f"{tmp_path}/val-*.tar"))
    )
    assert [sample.key for sample in (*train, *val)] == [f"{i:06d}" for i in range(5)]
    assert len({sample.parts["jpg"] for sample in (*train, *val)}) == 5
    regions = [region for sample in train for region in parse_sample(sample.parts)[1].regions]
    assert regions and all(" that is " in region.short for region in regions)
