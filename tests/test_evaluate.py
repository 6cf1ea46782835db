"""The evaluate command: suites, files and errors."""

import json
import shutil

import pytest
import torch
from PIL import Image

from fgclip_fast import evaluate, suites
from fgclip_fast.config import Data
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.interpolation import interpolate
from tests import runs
from tests.models import MINI
from tests.refusals import refusal


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    model = FGCLIP(MINI)
    model.save(tmp_path / "weights")
    return tmp_path / "weights"


def questions(folder, shards):
    Image.effect_noise((64, 48), 80).convert("RGB").save(folder / "a.jpg")
    line = {"img_path": "a.jpg", "bbox": [1, 2, 30, 40], "width": 64, "height": 48, "pos_expression": ["a"]}
    for name in ("hard", "easy"):
        (folder / f"{name}.jsonl").write_text(json.dumps(line | {"neg_expression": ["b", "c"]}))


def test_fg_ovd_files_of_a_folder_are_evaluated_and_written(weights, tmp_path, shards, capsys):
    questions(tmp_path, shards)
    words = [str(weights), "--suite", "fg-ovd", "--data", str(tmp_path), "--images", str(tmp_path)]
    evaluate.main([*words, "--output", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures) == {"fg-ovd/hard", "fg-ovd/easy"} and figures["fg-ovd/hard"]["questions"] == 1
    assert "fg-ovd/hard" in capsys.readouterr().out


def test_figures_keep_the_settings_that_they_were_made_with(weights, tmp_path, shards):
    questions(tmp_path, shards)
    words = ["--suite", "fg-ovd", "--data", str(tmp_path / "hard.jsonl"), "--images", str(tmp_path)]
    FGCLIP(MINI).save(tmp_path / "changed")
    (tmp_path / "copy").symlink_to(weights)
    found = {}
    for name in ("weights", "copy", "changed"):
        evaluate.main([str(tmp_path / name), *words, "--output", str(tmp_path / f"{name}.json")])
        found[name] = figures_of(tmp_path / f"{name}.json")["fg-ovd/hard"]["of"]["settings"]
    assert found["weights"] == found["copy"] and found["weights"]["model_sha256"] != found["changed"]["model_sha256"]
    one = found["weights"]
    assert (one["image_size"], one["text_length"], one["activation"]) == (32, {"short": 77, "long": 248}, "quick_gelu")
    assert one["dtype"] == "float32" and one["device"] in ("cpu", "cuda")
    assert {"torch", "pillow"} <= set(one["versions"]) and len(one["merges_sha256"]) == 16


def test_a_file_without_a_usable_question_gives_null_in_valid_json(weights, tmp_path, capsys):
    (tmp_path / "q.jsonl").write_text("not JSON\n")
    words = [str(weights), "--suite", "fg-ovd", "--data", str(tmp_path / "q.jsonl"), "--images", str(tmp_path)]
    evaluate.main([*words, "--output", str(tmp_path / "figures.json"), "--allow-partial"])
    figures = json.loads((tmp_path / "figures.json").read_text(), parse_constant=pytest.fail)["fg-ovd/q"]
    assert figures["top1"] is None and figures["questions"] == 0 and figures["skipped"] == {"malformed line": 1}
    assert "nan" not in capsys.readouterr().out


def test_evaluating_without_the_embedded_set_does_not_write_it(shards, tmp_path, monkeypatch):
    monkeypatch.setattr("fgclip_fast.scenes.locate.embedded", lambda: pytest.fail("written"))
    run = runs.run(tmp_path / "run", data=Data())
    evaluate.main([str(run), "--suite", "records", "--data", str(shards / "val-*.tar"), "--limit", "2"])


def test_every_suite_says_its_purpose_in_help(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{name}: {suite.purpose}" in text for name, suite in suites.SUITES.items())


def test_records_of_any_shards(weights, shards, tmp_path):
    words = [str(weights), "--suite", "records", "--data", str(shards / "val-*.tar")]
    evaluate.main([*words, "--output", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())["records"]
    assert figures["images"] == 12 and 0 <= figures["hard_negative_top1"] <= 1


def test_retrieval_of_pairs_prints_its_protocol_and_writes_what_it_is_of(weights, tmp_path, capsys):
    for number in range(3):
        Image.effect_noise((64, 48), 80).convert("RGB").save(tmp_path / f"{number}.png")
    rows = "\n".join(f"{n}.png,picture {n}" for n in range(3))
    (tmp_path / "pairs.csv").write_text(f"image,caption\n{rows}\nmissing.png,no")
    words = [str(weights), "--suite", "retrieval", "--data", str(tmp_path / "pairs.csv")]
    evaluate.main([*words, "--output", str(tmp_path / "f.json"), "--text", "long"])
    figures = json.loads((tmp_path / "f.json").read_text())["retrieval/pairs"]
    assert figures["images"] == 3 and figures["of"]["skipped"] == {"missing or unreadable image": 1}
    assert (
        figures["of"]["protocol"] == "pairs of pairs.csv: all images, all captions, long text path (not the protocol's)"
    )
    assert "long text path" in " ".join(capsys.readouterr().out.split())


def sets(folder):
    """A folder of public data sets: COCO's boxes and captions, SugarCrepe, with three images of four."""
    for number in range(3):
        (folder / "coco" / "val2017").mkdir(parents=True, exist_ok=True)
        Image.effect_noise((64, 48), 80).convert("RGB").save(folder / "coco" / "val2017" / f"{number}.jpg", "PNG")
    images = [{"id": n, "width": 64, "height": 48, "file_name": f"{n}.jpg"} for n in range(4)]
    captions = [{"image_id": n, "caption": f"picture {n} by {k}"} for n in range(4) for k in range(6)]
    boxes = [{"image_id": n, "bbox": [1, 2, 30, 40], "category_id": 1 + n % 2} for n in range(4)]
    files = {
        "coco/annotations/captions_val2017.json": {"images": images, "annotations": captions},
        "coco/annotations/instances_val2017.json": {
            "images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        },
        "sugarcrepe/add_att.json": {"0": {"filename": "1.jpg", "caption": "a", "negative_caption": "b"}},
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))


def test_a_folder_of_public_sets_gives_one_table_and_tells_what_is_missing(weights, tmp_path, caplog, capsys):
    sets(tmp_path / "sets")
    (tmp_path / "templates.txt").write_text("a {}")
    words = [str(weights), "--suite", "retrieval", "boxes", "compositional", "--data", str(tmp_path / "sets")]
    caplog.set_level("INFO")
    evaluate.main([*words, "--templates", str(tmp_path / "templates.txt"), "--output", str(tmp_path / "f.json")])
    figures = json.loads((tmp_path / "f.json").read_text())
    assert set(figures) == {"retrieval/coco", "boxes/coco", "compositional/sugarcrepe"}
    assert [f["of"]["asked"] for f in figures.values()] == [3, 3, 1] and all(
        f["of"]["protocol"] for f in figures.values()
    )
    assert figures["retrieval/coco"]["captions"] == 15, "five of six each"
    assert "retrieval/docci: not in" in caplog.text and "published at google.github.io/docci" in caplog.text
    assert "retrieval/coco: not in" not in caplog.text and "without a trained dense path" not in caplog.text
    assert "coco boxes, crowds included" in " ".join(capsys.readouterr().out.split())


def test_texts_are_embedded_by_the_first_command_alone(weights, tmp_path, monkeypatch):
    sets(tmp_path / "sets")
    (tmp_path / "templates.txt").write_text("a {}")
    words = [str(weights), "--suite", "retrieval", "boxes", "compositional", "--data", str(tmp_path / "sets")]
    words += ["--templates", str(tmp_path / "templates.txt"), "--output"]
    found = {}
    for name in ("off", str(tmp_path / "kept"), "auto"):
        evaluate.main([*words, str(tmp_path / "f.json"), "--text-cache", name])
        found[name] = figures_of(tmp_path / "f.json")
    assert len(list((tmp_path / "kept").glob("*/*.safetensors"))) == 3, "captions, classes, and SugarCrepe's two"
    monkeypatch.setattr(FGCLIP, "encode_text", lambda *_, **__: pytest.fail("embedded anew"))
    for name in (str(tmp_path / "kept"), "auto"):
        evaluate.main([*words, str(tmp_path / "f.json"), "--text-cache", name])
        assert figures_of(tmp_path / "f.json") == found["off"] == found[name]


def test_a_folder_without_a_public_set_is_refused_for_several_suites(weights, tmp_path, capsys):
    words = [str(weights), "--suite", "retrieval", "boxes", "--data", str(tmp_path)]
    assert "must hold a public data set of one of the suites" in refusal(evaluate.main, words, capsys)


def test_fewer_than_half_asked_ends_with_an_error_after_the_figures_are_written(weights, tmp_path, capsys):
    Image.effect_noise((64, 48), 80).convert("RGB").save(tmp_path / "0.png")
    (tmp_path / "pairs.csv").write_text("image,caption\n0.png,zero\nno.png,one\nnone.png,two")
    words = [str(weights), "--suite", "retrieval", "--data", str(tmp_path / "pairs.csv")]
    words += ["--output", str(tmp_path / "f.json")]
    refused = refusal(evaluate.main, words, capsys)
    assert "retrieval/pairs: fewer than half could be asked, 1 of 3 (2 missing or unreadable image)" in refused
    assert json.loads((tmp_path / "f.json").read_text())["retrieval/pairs"]["images"] == 1
    evaluate.main([*words, "--allow-partial"])


def test_a_plain_clip_is_told_by_suites_about_regions(weights, tmp_path, caplog):
    sets(tmp_path / "sets")
    (tmp_path / "templates.txt").write_text("a {}")
    model = FGCLIP(MINI)
    model.text_filip_projection.weight.data.copy_(model.text_projection.weight)
    model.save(tmp_path / "clip")
    words = ["--suite", "boxes", "--data", str(tmp_path / "sets"), "--templates", str(tmp_path / "templates.txt")]
    evaluate.main([str(tmp_path / "clip"), *words])
    assert "holds a CLIP without a trained dense path, so figures of boxes" in caplog.text


def test_inputs_that_are_not_the_models_and_leaked_images_are_told(shards, tmp_path, caplog):
    val = str(shards / "val-*.tar")
    run = runs.run(tmp_path / "run", data=Data(train=val, val=val))
    evaluate.main([str(run)])
    assert "12 of 12 validation images are also in training" in caplog.text and "made for" not in caplog.text
    model = shutil.copytree(next(run.glob("checkpoints/*/model")), tmp_path / "model")  # a checkpoint is not edited
    processor = model / "preprocessor_config.json"
    processor.write_text(json.dumps(json.loads(processor.read_text()) | {"size": 336}))
    caplog.clear()
    evaluate.main([str(model), "--suite", "records", "--data", str(shards / "train-00000.tar"), "--limit", "2"])
    assert "was made for images of 336 pixels by its processor, 32 here" in caplog.text


def test_figures_of_other_suites_are_kept(weights, shards, tmp_path):
    output = tmp_path / "figures.json"
    output.write_text('{"other": {"top1": 0.5}}')
    evaluate.main([str(weights), "--suite", "records", "--data", str(shards / "val-*.tar"), "--output", str(output)])
    assert set(json.loads(output.read_text())) == {"other", "records"}


def readers(option):
    return ", ".join(name for name, suite in suites.SUITES.items() if option in suite.options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--suite fg-ovd", "data: --suite fg-ovd needs --data"),
        ("--suite fg-ovd --data nowhere", "data must be a .jsonl file or a folder of them, got nowhere"),
        ("--suite fg-ovd --data {file} --images nowhere", "images must be an existing folder, got nowhere"),
        ("--suite levels --text long", "text is for --suite retrieval, got it with --suite levels"),
        ("--suite retrieval", "data: --suite retrieval needs --data"),
        ("--suite retrieval --data nowhere", "data must be an existing file or folder, got nowhere"),
        ("--suite auto records", "suite must be auto alone, or other suites, got auto records"),
        ("--suite records", "data: the run has no validation shards"),
        ("--suite records --data nowhere", "data: shards: 'nowhere' names nowhere, where no tar file exists"),
        (
            "--suite records --data {val} --images .",
            f"images is for --suite {readers('images')}, got it with --suite records",
        ),
        ("--suite levels --data {val}", f"data is for --suite {readers('data')}, got it with --suite levels"),
        ("--data {val}", f"data is for --suite {readers('data')}, got it with --suite auto"),
        ("", "is not a run with a config.yaml, so give one: --suite " + ", ".join(suites.SUITES)),
        ("--suite records --data {val} --output {folder}", "output must be a file, got the folder {folder}"),
        ("--suite records --data {val} --output no/x.json", "output must lie in an existing folder, got no/x.json"),
        ("--suite records --data {val} --output {file}", "output must be a new file, or a file of figures, got {file}"),
        ("--suite records --data {val} --batch-size -4", "batch_size must be > 0, got -4"),
        ("--suite levels --batch-size 0", "batch_size must be > 0, got 0"),
        ("--suite levels --limit -1", "limit must be > 0, got -1"),
        ("--suite levels --device foo", "device must be auto, cpu, cuda or cuda:0, got foo"),
    ],
)
def test_an_argument_that_cannot_be_is_named_and_nothing_written(weights, shards, tmp_path, words, message, capsys):
    (tmp_path / "q.jsonl").write_text("no figures")
    places = {"val": shards / "val-*.tar", "folder": tmp_path, "file": tmp_path / "q.jsonl"}
    refused = refusal(evaluate.main, [str(weights), *words.format(**places).split()], capsys)
    assert message.format(**places).replace(" ", "") in refused.replace(" ", "")  # a frame breaks long paths
    assert not (weights / "evaluation.json").exists()


def test_a_run_without_validation_shards_needs_a_suite(tmp_path, capsys):
    run = runs.run(tmp_path / "run", data=Data(train="a.tar", val=""))
    refused = refusal(evaluate.main, [str(run)], capsys)
    assert refused.endswith("run has no validation shards, so give one: --suite " + ", ".join(suites.SUITES))


def test_output_and_batch_size_hold_without_a_suite_too(shards, tmp_path, monkeypatch):
    run = runs.run(tmp_path / "run", data=Data(train="a.tar", val=str(shards / "val-*.tar")), figures={"records": {}})
    sizes = []
    ask = suites.records.evaluate
    monkeypatch.setattr(suites.records, "evaluate", lambda *a, **k: sizes.append(k["batch_size"]) or ask(*a, **k))
    evaluate.main([str(run), "--output", str(tmp_path / "f.json"), "--batch-size", "5", "--limit", "7"])
    assert json.loads((tmp_path / "f.json").read_text())["records"]["images"] == 7 and sizes == [5]
    assert json.loads((run / "evaluation.json").read_text()) == {"records": {}}


def figures_of(path):
    return json.loads(path.read_text())


def test_figures_tell_what_they_are_of(shards, tmp_path):
    val = str(shards / "val-*.tar")
    run = runs.run(tmp_path / "run", data=Data(train="a.tar", val=val))
    evaluate.main([str(run)])
    of = figures_of(run / "evaluation.json")["records"]["of"]
    assert of["step"] == 3 and of["weights"].endswith("run/checkpoints/step-00000003/model")
    assert of["data"]["shards"] == 1 and of["data"]["files"] == val and of["data"]["samples"] == 12
    assert (of["limit"], of["asked"], of["skipped"]) == (None, 12, {})
    assert "all regions, 10 negatives" in of["protocol"]


@pytest.mark.parametrize("words", ["--limit 5", "--suite records --data {other}", "--suite records --limit 5"])
def test_a_partial_or_another_result_never_replaces_the_runs_own(shards, tmp_path, words):
    run = runs.run(tmp_path / "run", data=Data(train="a.tar", val=str(shards / "val-*.tar")))
    evaluate.main([str(run)])
    own = (run / "evaluation.json").read_bytes()
    evaluate.main([str(run), *words.format(other=shards / "train-00000.tar").split()])
    assert (run / "evaluation.json").read_bytes() == own
    (other,) = (run / "evaluations").glob("*.json")
    assert figures_of(other)["records"]["images"] == (5 if "limit" in words else 20)


def test_questions_of_another_file_of_the_same_name_do_not_replace_those_before(shards, tmp_path):
    run = runs.run(tmp_path / "run", data=Data(train="a.tar", val=""))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        questions(tmp_path / folder, shards)
    (tmp_path / "b" / "hard.jsonl").write_text("")
    for folder in ("a", "a", "b"):
        here = str(tmp_path / folder)
        evaluate.main([str(run), "--suite", "fg-ovd", "--data", here, "--images", here])
    assert figures_of(run / "evaluation.json")["fg-ovd/hard"]["questions"] == 1
    assert [figures_of(file)["fg-ovd/hard"]["questions"] for file in (run / "evaluations").glob("*.json")] == [0]


def test_nothing_is_written_into_a_folder_of_weights(weights, shards, capsys):
    before = sorted(weights.iterdir())
    evaluate.main([str(weights), "--suite", "records", "--data", str(shards / "val-*.tar")])
    assert sorted(weights.iterdir()) == before and "hard_negative_top1" in capsys.readouterr().out


def against(tmp_path, words):
    evaluate.main([*words, "--output", str(tmp_path / "against.json")])
    return figures_of(tmp_path / "against.json")


def test_a_model_is_compared_with_another_on_the_same_questions(weights, shards, tmp_path, capsys):
    torch.manual_seed(1)
    FGCLIP(MINI).save(tmp_path / "other")
    words = ["--suite", "records", "--data", str(shards / "val-*.tar")]
    alone = against(tmp_path, [str(tmp_path / "other"), *words])["records"]
    found = against(tmp_path, [str(weights), *words, "--against", str(tmp_path / "other")])["records"]
    compared, told = found["against"], capsys.readouterr().out
    assert compared["weights"] == str(tmp_path / "other") and compared["step"] is None
    assert compared["figures"]["hard_negative_top1"] == alone["hard_negative_top1"]
    difference = compared["differences"]["hard_negative_top1"]
    assert difference["difference"] == pytest.approx(found["hard_negative_top1"] - alone["hard_negative_top1"])
    assert difference["interval"][0] <= difference["difference"] <= difference["interval"][1]
    assert f"records: {compared['verdict']} (by hard_negative_top1 over 9 images)" in told
    assert "short_image_to_text_r@10 " in told


def test_a_run_is_compared_with_what_it_started_from(shards, tmp_path):
    run = runs.run(tmp_path / "run", data=Data(train="a.tar", val=str(shards / "val-*.tar")), seed=3)
    torch.manual_seed(3)
    FGCLIP(runs.MODEL).save(tmp_path / "seeded")
    evaluate.main([str(run), "--against", "init"])
    by_name = against(tmp_path, [str(run), "--against", str(tmp_path / "seeded")])["records"]["against"]
    by_word = figures_of(run / "evaluation.json")["records"]["against"]
    assert (by_word["weights"], by_word["step"]) == ("init", 0)
    assert by_word["differences"] == by_name["differences"] and by_word["figures"] == by_name["figures"]


def test_a_curve_holds_the_figures_of_the_weights_between(shards, tmp_path, capsys):
    val = str(shards / "val-*.tar")
    run = runs.run(tmp_path / "run", data=Data(train="a.tar", val=val), seed=3)
    start = FGCLIP(runs.MODEL)
    start.save(tmp_path / "start")
    evaluate.main([str(run), "--against", str(tmp_path / "start"), "--curve"])
    found = figures_of(run / "evaluation.json")["records"]
    curve = found["against"]["curve"]
    assert curve["shares"] == [0, 0.25, 0.5, 0.75, 1]
    assert set(curve["figures"]) == set(found["against"]["differences"])
    middle = pretrained.load(run)
    interpolate(middle, start, 0.5)
    middle.save(tmp_path / "middle")
    words = ["--suite", "records", "--data", val, "--output", str(tmp_path / "middle.json")]
    evaluate.main([str(tmp_path / "middle"), *words])
    own = figures_of(tmp_path / "middle.json")["records"]
    for figure, values in curve["figures"].items():
        expected = [found["against"]["figures"][figure], own[figure], found[figure]]
        assert [values[0], values[2], values[4]] == expected
    assert "share of the model's weights" in capsys.readouterr().out
    rows = (run / "evaluation.md").read_text().splitlines()
    assert rows[2].startswith("| records | hard_negative_top1 |") and " … " in rows[2]
    assert (run / "evaluation.tex").read_text().splitlines()[0].startswith("% model & records hard_negative_top1")


def test_a_curve_needs_a_second_model(weights, shards, capsys):
    words = [str(weights), "--suite", "records", "--data", str(shards / "val-*.tar"), "--curve"]
    assert "so name the other by --against" in refusal(evaluate.main, words, capsys)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("init", "against: init needs a run with a config.yaml, got "),
        ("nowhere", "against nowhere: load: nowhere does not exist"),
        ("", "against : load: . holds neither config.json"),
    ],
)
def test_weights_to_compare_with_that_cannot_be_are_named(weights, shards, other, message, capsys):
    words = ["--suite", "records", "--data", str(shards / "val-*.tar"), "--against", other]
    assert message in refusal(evaluate.main, [str(weights), *words], capsys)


def test_no_weights_is_told(tmp_path):
    with pytest.raises(SystemExit, match="error: "):
        evaluate.main([str(tmp_path)])


@pytest.mark.parametrize("words", [[], ["--trust-file"]])
def test_a_pickle_runs_only_if_the_user_trusts_it(monkeypatch, weights, words):
    asked = []

    def load(path, **options):
        asked.append(options["trust_file"])
        raise ValueError("load: stop here")

    monkeypatch.setattr(evaluate.pretrained, "load", load)
    with pytest.raises(SystemExit, match="stop here"):
        evaluate.main([str(weights), "--suite", "records", "--data", "x.tar", *words])
    assert asked == [bool(words)]


def test_a_name_on_a_hub_is_evaluated(monkeypatch, weights, shards, tmp_path):
    monkeypatch.setattr(evaluate.pretrained.hub, "fetch", lambda name, revision=None: weights)
    words = ["owner/name", "--suite", "records", "--data", str(shards / "val-*.tar")]
    assert against(tmp_path, words)["records"]["of"]["weights"] == str(weights)
