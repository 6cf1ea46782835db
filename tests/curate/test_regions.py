"""A detector's boxes become regions: unsure, overlapping, tiny and superfluous ones are dropped."""

import json

import pytest

pytest.importorskip("openai")

from fgclip_fast.curate import boxes, run
from fgclip_fast.curate.__main__ import main
from fgclip_fast.curate.models import endpoint
from fgclip_fast.curate.models.detect import UNFIT, Detector
from fgclip_fast.curate.phrases import Phrases
from fgclip_fast.curate.regions import MANY, NO_PHRASES, SUPPRESSED, UNSURE, Regions
from fgclip_fast.curate.units import shards_of
from fgclip_fast.data.shards import ShardWriter
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.model import processor_files
from fgclip_fast.scenes.compose import SIDE
from fgclip_fast.scenes.grammar import phrase
from fgclip_fast.scenes.write import record_of, scene_of
from tests.curate.shards import contents, jpeg, records, write

SCENES = range(4)


@pytest.fixture
def units(server, tmp_path):
    """A shard of scenes with the phrases of their captions."""
    with ShardWriter(tmp_path / "mine" / "a.tar") as shard:
        for i in SCENES:
            fields = {"caption": record_of(scene_of("train", i), "train", i)["caption"]}
            shard.write(f"{i}", jpg=server.jpegs[i], json=json.dumps(fields).encode())
    run(Phrases(), shards_of([tmp_path / "mine" / "a.tar"]), tmp_path / "phrases", workers=1)
    return shards_of([tmp_path / "phrases" / "a.tar"])


def regions(stub, **settings):
    return Regions(detector=Detector(url=stub.url, model="stub", retries=0), **settings)


def test_each_thing_of_a_scene_gets_its_box_and_all_others_are_dropped(stub, units, tmp_path):
    counts = run(regions(stub), units, tmp_path / "out")
    for i, fields in enumerate(records(tmp_path / "out")):
        true = {phrase(p.thing): [edge / SIDE for edge in p.box] for p in scene_of("train", i).placed}
        assert {one["short_expr"] for one in fields["bbox_info"]} == set(true)
        for one in fields["bbox_info"]:
            assert one["bbox"] == pytest.approx([*true[one["short_expr"]], 0.9], abs=1e-4)
    things = sum(len(scene_of("train", i).placed) for i in SCENES)
    assert counts["boxes"] == counts[f"boxes dropped: {SUPPRESSED}"] == counts[f"boxes dropped: {boxes.TINY}"] == things
    assert counts[f"boxes dropped: {UNSURE}"] == counts[f"boxes dropped: {boxes.EVERYTHING}"] >= things


def test_the_surest_are_kept_and_regions_that_records_bring_stay(stub, units, tmp_path):
    counts = run(regions(stub, most=1), units, tmp_path / "one")
    assert [len(fields["bbox_info"]) for fields in records(tmp_path / "one")] == [1, 1, 1, 1]
    assert counts[f"boxes dropped: {MANY}"]
    counts = run(regions(stub), shards_of([tmp_path / "one" / "a.tar"]), tmp_path / "kept")
    assert contents(tmp_path / "kept") == contents(tmp_path / "one") and counts["records that kept their regions"] == 4


def test_records_without_phrases_and_answers_that_do_not_fit_are_named(stub, units, tmp_path, monkeypatch):
    shards = write(tmp_path / "b.tar", {"caption": "a"}, {"phrases": []})
    counts = run(regions(stub), shards_of([shards]), tmp_path / "none")
    assert counts[f"records dropped: {NO_PHRASES}"] == 1
    assert records(tmp_path / "none") == [{"phrases": [], "bbox_info": []}]
    with monkeypatch.context() as patch:
        patch.setattr(stub, "_boxes", lambda *_: {"boxes": [{"box": [0, 0, 1, 1], "phrase": 99, "score": 1}]})
        assert run(regions(stub), units, tmp_path / "out")[f"records failed: {UNFIT}"] == 4
    assert not run(regions(stub), units, tmp_path / "out", retry_failed=True)["records failed"]
    stub.trouble = lambda number, question: "500"
    assert run(regions(stub, most=2), units, tmp_path / "down")[f"records failed: {endpoint.NO_ANSWER}"] == 4


def test_boxes_found_before_a_stop_are_not_asked_for_again(stub, units, tmp_path):
    run(regions(stub), units, tmp_path / "out")
    whole = contents(tmp_path / "out")
    (tmp_path / "out" / "a.tar").unlink()
    stub.forget()
    run(regions(stub), units, tmp_path / "out")
    assert contents(tmp_path / "out") == whole and not stub.answered


def test_a_detector_must_be_named(units, tmp_path):
    with pytest.raises(SystemExit, match=r"detector.model or detector.url must name a detector, got neither"):
        main(["regions", str(tmp_path / "phrases"), "--output", str(tmp_path / "out")])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a Grounding DINO and an OWLv2 of random weights and a few units."""
    import torch

    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "a", "red", "mug", "car", "blue"]
    (folder / "vocab.txt").write_text("\n".join(words))
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    backbone = transformers.SwinConfig(
        image_size=64, embed_dim=16, depths=[1] * 4, num_heads=[1] * 4, window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.GroundingDinoConfig(
        backbone_config=backbone, text_config=transformers.BertConfig(vocab_size=11, **small), d_model=32,
        encoder_layers=1, decoder_layers=2, num_queries=7, encoder_ffn_dim=32, decoder_ffn_dim=32,
        encoder_attention_heads=2, decoder_attention_heads=2,
    )  # fmt: skip
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder / "dino")
    images = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    bert = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"))
    transformers.GroundingDinoProcessor(images, bert).save_pretrained(folder / "dino")
    text = transformers.Owlv2TextConfig(vocab_size=49408, **small)
    vision = transformers.Owlv2VisionConfig(image_size=64, patch_size=16, **small)
    config = transformers.Owlv2Config(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=32
    )  # fmt: skip
    calm(transformers.Owlv2ForObjectDetection(config)).save_pretrained(folder / "owl")
    (folder / "clip").mkdir()
    processor_files.write(folder / "clip", Tokenizer(), 64)
    clip = transformers.CLIPTokenizer.from_pretrained(folder / "clip")
    images = transformers.Owlv2ImageProcessor(size={"height": 64, "width": 64})
    transformers.Owlv2Processor(images, clip).save_pretrained(folder / "owl")
    return folder


def calm(model):
    """A model with weights so small that no box degenerates."""
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.1)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dino", "owl"])
def test_a_detector_of_transformers_runs_in_this_process(models, tmp_path, name):
    phrases = [{form: text for form in ("bare", "short", "long")} for text in ("a red mug", "a blue car")]
    fields = [{"phrases": phrases}, {"phrases": phrases[:1]}, {"phrases": phrases}]
    images = [jpeg((9, 9, blue), (80, 60)) for blue in (50, 120, 200)]
    units = shards_of([write(tmp_path / "a.tar", *fields, images=images)])
    every = {"confidence": 0.0, "smallest": 0.0, "largest": 1.0, "overlap": 1.0, "most": 99}
    for batch in (1, 3):
        stage = Regions(detector=Detector(model=str(models / name), device="cpu", batch=batch), **every)
        run(stage, units, tmp_path / str(batch))
    single, together = (records(tmp_path / folder) for folder in ("1", "3"))
    for one, other in zip(single, together, strict=True):
        assert one["bbox_info"]
        assert {found["short_expr"] for found in one["bbox_info"]} <= {text["short"] for text in one["phrases"]}
        if name == "owl":  # the queries of a random Grounding DINO depend on rounding
            mine, theirs = (sorted(found["bbox"] for found in boxes["bbox_info"]) for boxes in (one, other))
            assert mine == [pytest.approx(box, abs=0.01) for box in theirs] and len(mine) == 12
