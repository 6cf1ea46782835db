"""A recipe runs its stages in order, goes on where it was stopped, and names what is wrong in it."""

import json

import pytest

from fgclip_fast.curate.__main__ import main
from fgclip_fast.curate.recipe import read
from fgclip_fast.data.file_order import examples
from fgclip_fast.inspection import curation
from fgclip_fast.scenes.write import jpeg, record_of, scene_of
from tests.curate.shards import contents

RECIPE = """
source: photos
output: mine
shard_size: 5
stages:
  - phrases: {most: 12}
  - negatives: {noun_share: 0}
  - filter: {language: ''}
  - shards: {val: 0.2}
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(8):
        scene = scene_of("train", number)
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(jpeg(scene))
        (tmp_path / "photos" / f"{number}.json").write_text(json.dumps(record_of(scene, "train", number)))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_a_folder_of_images_becomes_training_shards(recipe, capsys):
    main(["run", str(recipe), "--workers", "1"])
    assert "8 of 8 records" in capsys.readouterr().out
    folder = recipe.parent / "mine" / "4-shards"
    train, val = (list(examples(str(folder / f"{split}-*.tar"), image_size=16)) for split in ("train", "val"))
    assert len(train) + len(val) == 8 and val and all(len(group) > 8 for group in train[0].hard_texts)
    before = contents(folder)
    main(["run", str(recipe), "--workers", "1"])
    assert contents(folder) == before
    recipe.write_text(RECIPE.replace("val: 0.2", "val: 0.5"))
    with pytest.raises(SystemExit, match="delete it to make them anew"):
        main(["run", str(recipe), "--workers", "1"])


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("sources: a", "unknown key 'sources'; the nearest is 'source'"),
        ("source: a\noutput: b", "stages is missing"),
        ("source: a\noutput: b\nstages: [phrase]", "unknown stage 'phrase'; the nearest is 'phrases'"),
        ("source: a\noutput: b\nstages: [phrases: {mots: 3}]", "phrases.mots is unknown: 'mots'; the nearest"),
        ("source: a\noutput: b\nstages: [phrases: {most: many}]", "phrases.most must be a valid integer, got 'many'"),
        ("source: a\noutput: b\nstages: [phrases: {most: 0}]", "curate phrases: most must be > 0, got 0"),
        ("source: a\noutput: b\nstages: [shards, filter]", "shards must be the last stage"),
        ("source: a\noutput: b\nshard_size: 0\nstages: [filter]", "shard_size must be a number of images above 0"),
        ("- a", "must be a mapping"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_one_line(tmp_path, wrong, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(wrong)
    with pytest.raises(ValueError) as error:
        read(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_stages_run_alone_too(recipe, tmp_path, capsys):
    main(["images", str(tmp_path / "photos"), "--output", str(tmp_path / "1"), "--workers", "1"])
    main(["phrases", str(tmp_path / "1"), "--output", str(tmp_path / "2"), "--most", "3", "--workers", "1"])
    main(["shards", str(tmp_path / "2"), "--output", str(tmp_path / "3"), "--workers", "1"])
    out = capsys.readouterr().out
    assert "24  phrases" in out and "8  records in train" in out
    with pytest.raises(SystemExit, match="--workers must be at least 1, got 0"):
        main(["phrases", str(tmp_path / "1"), "--output", str(tmp_path / "4"), "--workers", "0"])


def test_the_page_shows_the_funnel_the_cost_and_records(recipe, tmp_path, capsys):
    main(["run", str(recipe), "--workers", "1"])
    page = (tmp_path / "mine" / "curation.html").read_text()
    for words in (
        "From images to groups",
        "Throughput and cost",
        "Agree or disagree: 8 records",
        "one attribute (hard)",
    ):
        assert words in page
    assert page.count("<img") == 8 and "curation.html shows" in capsys.readouterr().out
    figures = curation.funnel(curation.stages_in(tmp_path / "mine"))
    regions = sum(len(scene_of("train", i).placed) for i in range(8))
    assert (figures["images"], figures["captions"], figures["boxes"], figures["groups"]) == (8, 8, regions, regions)
    with pytest.raises(SystemExit, match="must hold the folders of stages"):
        main(["report", str(tmp_path / "photos")])
