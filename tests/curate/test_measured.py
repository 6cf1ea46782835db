"""What the benchmarks of curation measure is what the stages do."""

import json

import pytest

pytest.importorskip("openai")
pytest.importorskip("py3langid")

from benchmarks import curate_rate, curate_table, duplicates_size
from fgclip_fast.curate.filters import Filter
from fgclip_fast.data.shards import ShardWriter
from fgclip_fast.scenes.write import record_of, scene_of
from tests.curate.shards import records


def test_rates_are_those_of_all_stages(tmp_path):
    regions = curate_rate.write_photographs(tmp_path / "photos", 4)
    seconds = curate_rate.timed(tmp_path, workers=1)
    assert [*seconds] == ["images", "phrases", "negatives", "filter", "shards"] and all(seconds.values())
    kept = records(tmp_path / "stages" / "4-shards")
    assert len(kept) == 4 and sum(len(one["bbox_info"]) for one in kept) == regions
    assert all(len(region["short_expr_negs"]) >= 8 for one in kept for region in one["bbox_info"])
    assert "| all |" in curate_rate.table({"filter": 2.0}, 4, regions)


def test_curated_scenes_have_all_things_of_the_true_ones_and_no_true_text_but_captions(server, tmp_path):
    with ShardWriter(tmp_path / "true" / "train-00000.tar") as shard:
        for i, image in server.jpegs.items():
            record = record_of(scene_of("train", i), "train", i)
            shard.write(f"{i:08d}", jpg=image, json=json.dumps(record).encode())
    true = curate_table.sizes_of(tmp_path / "true")
    for make in (curate_table.by_rules, lambda *paths: curate_table.curated(*paths, len(server.jpegs))):
        assert curate_table.sizes_of(make(tmp_path / "true", tmp_path)) == true
    for stripped in records(tmp_path / "without"):
        assert not any("short_expr_negs" in region for region in stripped["bbox_info"])
    assert records(tmp_path / "images") == [{}] * len(server.jpegs)


def test_one_in_ten_of_the_hashes_to_measure_with_repeats_one_of_the_shard_before(monkeypatch):
    monkeypatch.setattr(duplicates_size, "SHARD", 200)
    found = Filter().decide(duplicates_size.marks(500, alike=False))
    assert found == {"00001.tar": [*range(0, 200, 10)], "00002.tar": [*range(0, 100, 10)]}
