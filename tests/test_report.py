"""The report of each kind of run: its words, its safety against captions with markup, and its script in a browser."""

import json
import math
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser

import pytest
import torch
import torch.nn.functional as F

from fgclip_fast import figures_file, report, suites
from fgclip_fast.config import Data
from fgclip_fast.evaluation.comparison import difference
from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.evaluation.questions import Question
from fgclip_fast.evaluation.views import ValidationImage, View, brightest_patch, contains, spread_evenly
from fgclip_fast.report import accuracy, charts, explore, files, gallery, html, page, sections, untrained
from fgclip_fast.report.__main__ import main
from fgclip_fast.scenes.write import write_scenes
from tests import browser, runs
from tests.refusals import refusal

SCENES = runs.untouched(Data(val="scenes"))
FIGURES = {f"{kind}/{name}": runs.level(0.91) for kind in ("unseen", "seen") for name in ("hard", "colour")}


@pytest.fixture(scope="module", autouse=True)
def scenes(tmp_path_factory):
    """A small embedded set, where the package would write the whole one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGCLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        few = partial(write_scenes, train=4, val=30, workers=1)
        patch.setattr("fgclip_fast.scenes.write.write_scenes", few)
        yield


@pytest.fixture(scope="module")
def on_scenes(tmp_path_factory):
    """A run on the embedded set, and its report."""
    run = runs.run(tmp_path_factory.mktemp("runs") / "scenes", data=SCENES, figures=FIGURES)
    report.write(run)
    return run


def own(tmp_path, texts, **more):
    """A run on a user's own shards."""
    shard = runs.shard(tmp_path / "val.tar", texts)
    return runs.run(tmp_path / "own", data=runs.untouched(Data(), train=str(shard), val=str(shard)), **more)


def text_of(path):
    return path.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Names and attributes of all elements, and the text outside of scripts."""

    def __init__(self, source):
        super().__init__()
        self.found, self.text, self._script = [], "", False
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._script = tag == "script"

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        self.text += "" if self._script else data


def test_one_file_that_loads_nothing(on_scenes):
    elements = Elements(text_of(on_scenes / "report.html")).found
    addresses = [value for _, attributes in elements for name, value in attributes.items() if name in ("src", "href")]
    assert addresses and all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    policy = next(a["content"] for tag, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert (on_scenes / "report.html").stat().st_size < 5_000_000


def test_sections_come_in_order(on_scenes):
    titles = re.findall(r'<h2 id="([\w-]+)"', text_of(on_scenes / "report.html"))
    assert titles == ["accuracy", "changed", "explore", "training", "speed", "answers", "reproduce"]


def test_result_is_given_with_chance_and_before_training(on_scenes):
    text = Elements(text_of(on_scenes / "report.html")).text
    before = untrained.figures(files.read(on_scenes), "cpu")["unseen/hard"]["top1"]
    assert "picks the right one 91 % of the time" in text
    assert f"chance 9 %, before training {100 * before:.0f} %" in text


def test_every_image_has_a_label(on_scenes):
    images = [attributes for tag, attributes in Elements(text_of(on_scenes / "report.html")).found if tag == "img"]
    assert images and all(attributes.get("alt") for attributes in images)


def test_unseen_combinations_are_marked(on_scenes):
    assert "never seen in training" in text_of(on_scenes / "report.html")


def test_samples_are_images_of_the_validation_set(on_scenes):
    notes = json.loads((on_scenes / "samples" / "samples.json").read_text())
    assert len(notes) == 8 and all((on_scenes / "samples" / name).is_file() for name in notes)
    assert len(notes["0.jpg"][0]["texts"]) == 11


def test_untrained_model_is_evaluated_once(on_scenes, monkeypatch):
    monkeypatch.setattr(untrained, "model", lambda run: pytest.fail("built again"))
    assert untrained.figures(files.read(on_scenes), "cpu")["unseen/hard"]["questions"] > 0


def test_figures_without_a_question_are_null_in_untrained_json(tmp_path, monkeypatch):
    run = runs.run(tmp_path / "run", data=SCENES, figures=FIGURES)
    nothing = {"top1": math.nan, "interval": [0.0, 1.0], "chance": 0.0, "questions": 0, "skipped": {}}
    found = {"unseen/hard": nothing, "records": {"images": 0, "loss_total": math.nan}}
    found = {name: Figures(values=values, asked=0) for name, values in found.items()}
    monkeypatch.setattr(suites, "evaluate", lambda *_: found)
    figures = untrained.figures(files.read(run), "cpu")
    written = (run / "untrained.json").read_text()
    saved = json.loads(written, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (
        figures
        == saved["figures"]
        == {
            "unseen/hard": nothing | {"top1": None},
            "records": {"images": 0, "loss_total": None},
        }
    )
    assert "chance 9 %)" in text_of(report.write(run))


def test_captions_are_text_wherever_they_stand(tmp_path):
    run = own(tmp_path, [*runs.HOSTILE, "a mug"])
    elements = Elements(text_of(report.write(run)))
    assert [attributes.get("id") for tag, attributes in elements.found if tag == "script"] == ["explore-data", None]
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert "<script>alert(1)</script>" in elements.text and "onerror=" in elements.text
    assert "\x00" not in elements.text


def test_inline_data_cannot_end_its_block():
    block = html.inline_json("x", {"text": "</script><!--<script>\u2028"})
    inside_block = block.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")
    assert "<" not in inside_block and json.loads(inside_block) == {"text": "</script><!--<script>\u2028"}


def test_own_records_are_compared_with_the_start_on_all_questions(tmp_path):
    texts = [f"a mug {number}" for number in range(300)]
    run = own(tmp_path, texts, figures={"records": {"images": 300, "hard_negative_top1": 0.5}})
    text = Elements(text_of(report.write(run))).text
    before = json.loads((run / "untrained.json").read_text())
    asked = before["outcomes"]["hard_negative_top1"]
    after = json.loads((run / "outcomes.json").read_text())["outcomes"]["records"]["hard_negative_top1"]
    assert len(asked) == len(after) == 300 and asked.keys() == after.keys()
    expected = accuracy.in_points(difference(after, asked))
    assert "Change, points" in text and expected in text and "Both were asked the same questions" in text


def test_a_run_is_not_asked_again_after_training(tmp_path, monkeypatch):
    run = own(tmp_path, ["a mug", "a pot"])
    source = files.read(run).source
    planted = {"hard_negative_top1": {"val.tar:0": (1, 1), "val.tar:1": (1, 1)}}
    figures_file.save_outcomes(run, {"records": Figures(values={}, asked=2, outcomes=planted)}, source, 3)
    asked = []
    ask = suites.evaluate
    monkeypatch.setattr(suites, "evaluate", lambda *a: asked.append(a) or ask(*a))
    report.write(run)
    assert len(asked) == 1  # the start


def test_boxes_that_are_answered_otherwise_are_shown_before_and_after():
    image = ValidationImage("p", b"", tuple(Question((0, 0, 1, 1), ("a mug", "a cup")) for _ in range(3)))
    patches = unit([1, 0])
    first, second = (
        View(image, patches, patches, [[0.5, 0.6 if wrong else 0.4] for wrong in own])
        for own in ((True, False, False), (False, True, False))
    )
    lost, gained = gallery.disagreements([first], [second])
    assert [i for *_, i in lost] == [1] and [i for *_, i in gained] == [0]


def test_other_data_before_and_after_stand_on_the_page_with_hostile_names_as_text(tmp_path):
    run = own(tmp_path, ["a mug"], figures={"records": {"images": 1, "hard_negative_top1": 0.5}})
    first, second = ({f"{i}.jpg": (right, 1) for i in range(20)} for right in (0, 1))
    both = (Figures(values={}, asked=20, outcomes={"top1": own}) for own in (first, second))
    compared = figures_file.compared({"x": next(both)}, {"x": next(both)}, "init", 0)["x"]
    compared["curve"] = {"shares": [0, 0.5, 1], "figures": {"top1": [1.0, 0.625, None]}}
    kept = {"fg-ovd/<script>alert(1)</script>": {"top1": 0.0, "chance": 0.1, "questions": 20, "against": compared}}
    kept["records"] = {"against": compared, "of": {"data": {"files": "general/val-*.tar"}, "limit": 7, "step": 2}}
    (run / "evaluations").mkdir()
    (run / "evaluations" / "1.json").write_text(json.dumps(kept))
    (run / "evaluations" / "2.json").write_text('{"records": {"against": {"weights": "other"}}}')
    elements = Elements(text_of(report.write(run)))
    assert [attributes.get("id") for tag, attributes in elements.found if tag == "script"] == ["explore-data", None]
    assert "What it kept" in elements.text
    assert "Weights between the start (0) and the run (1): top1" in elements.text and "62.5 %" in elements.text
    assert "fg-ovd/<script>alert(1)</script>After training: worse, by top1 over 20 images." in elements.text
    assert (
        "records of general/val-*.tar, the first 7, after step 2" in elements.text
        and "−100.0 (−100.0 … −100.0)*" in elements.text
    )


def test_validation_by_step_begins_before_training_and_ends_with_the_last_figures(tmp_path):
    last = {"images": 2, "hard_negative_top1": 1.0, "loss_total": 0.25, "of": {"step": 9}}
    log = [*runs.steps(3), {"step": 5, "kind": "validation", "images": 2, "loss_total": 0.5}]
    run = files.read(own(tmp_path, ["a mug", "a pot"], log=log, figures={"records": last}))
    before = {"records": {"images": 2, "loss_total": 1.0}}
    steps = [(line["step"], line.get("loss_total")) for line in sections.validated(run, before)]
    assert steps == [(0, 1.0), (3, None), (5, 0.5), (9, 0.25)]
    assert "Validation losses" in sections.training(run, before)
    assert [line["step"] for line in sections.validated(run, {"records": {"images": 1}})] == [3, 5, 9]


def test_own_shards_are_asked_by_their_phrases(tmp_path):
    run = own(tmp_path, ["a mug", "a pot"], figures={"records": {"images": 2, "hard_negative_top1": 0.5}})
    text = text_of(report.write(run))
    data = json.loads(re.search(r'id="explore-data">(.*?)</script>', text)[1])
    assert data["menus"] is None and data["phrases"] == ["a mug", "a pot"]
    assert "it picks the right one 50 % of the time" in text


def test_an_image_keeps_its_shape(tmp_path):
    text = text_of(report.write(own(tmp_path, ["a mug"])))
    image = json.loads(re.search(r'id="explore-data">(.*?)</script>', text)[1])["images"][0]
    assert (image["width"], image["height"]) == (40, 30)


def test_an_interrupted_run_says_so(tmp_path):
    text = text_of(report.write(own(tmp_path, ["a mug"], steps=50)))
    assert "3 of 50, stopped" in text and "it was stopped before its end" in text
    assert "python -m fgclip_fast.evaluate" in text


def test_a_run_killed_before_its_first_checkpoint_has_a_report(tmp_path):
    run = own(tmp_path, ["a mug"], saved=False, log=[])
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 1, "kind": "tra')
    text = text_of(report.write(run))
    assert "No step was done yet." in text and "no checkpoint yet" in text


def test_a_run_that_evaluated_nothing_says_why(tmp_path):
    log = [line for line in runs.steps(3) if line["kind"] != "validation"]
    run = runs.run(tmp_path / "run", data=runs.untouched(Data(), train="mine.tar", val=""), log=log)
    text = text_of(report.write(run))
    assert "it was not evaluated" in text and "pass --data.val SHARDS" in text


def test_validation_shards_that_moved_cost_the_images_alone(tmp_path):
    run = own(tmp_path, ["a mug"])
    (tmp_path / "val.tar").unlink()
    text = text_of(report.write(run))
    assert "could not be read" in text and 'id="training"' in text


def test_a_changed_validation_set_is_noted(tmp_path):
    run = own(tmp_path, ["a mug"])
    provenance = {"data": {"val": {"shards": 1, "samples": 9, "fingerprint": "of-another"}}}
    (run / "provenance.json").write_text(json.dumps(provenance))
    assert "its shards have changed" in text_of(report.write(run))


def test_causes_of_bad_records_are_counted(on_scenes):
    assert re.search(r"empty box</th><td>7</td>", text_of(on_scenes / "report.html"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "is not a run: it holds no config.yaml"),
        ("a: [1,", "config.yaml is not YAML: "),
        ("batch_size: -1", "config.yaml: batch_size must be > 0, got -1"),
        ("bach_size: 3", "config.yaml: unknown key 'bach_size'; the nearest is 'batch_size'"),
    ],
)
def test_a_folder_that_is_not_a_run_is_one_error(config, message, tmp_path, capsys):
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    assert message in refusal(main, [str(tmp_path)], capsys)


def unit(*rows):
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def view(box, patches):
    """A view of 2 x 2 patches with one box, around the first thing of the grammar, which is red."""
    image = ValidationImage("p", b"", (Question(box, (explore.grammar_phrases().texts[0],)),))
    return View(image, patches, patches[:1], [[1.0]])


def test_pointing_game_counts_images_whose_brightest_patch_lies_in_the_box():
    patches = unit([1, 0], [0, 1], [-1, 0], [0, -1])  # row by row
    views = [view((0.5, 0.0, 1.0, 0.5), patches), view((0.0, 0.5, 0.5, 1.0), patches)]
    phrases = explore.Phrases([views[0].image.questions[0].texts[0]])
    assert explore.point_at_phrases(views, phrases, unit([0.1, 1])) == explore.PointingGame(1, 2, 0.5)


def test_a_word_alone_is_asked_where_one_box_alone_has_it():
    phrases = explore.grammar_phrases()
    assert phrases.words(phrases.texts[0]) == [0, 0, 0, 0, 0] and phrases.words("a boat") is None
    texts = torch.zeros(len(phrases.texts), 2)
    texts[:, 0] = 1.0
    texts[[i for i, text in enumerate(phrases.texts) if " red " in text]] = torch.tensor([0.0, 1.0])
    patches = unit([1, 0], [0, 1], [1, 0], [1, 0])
    red, twice = view((0.5, 0.0, 1.0, 0.5), patches), view((0.0, 0.0, 1.0, 1.0), patches)
    twice = twice._replace(image=twice.image._replace(questions=twice.image.questions * 2))
    assert explore.point_at_words([red, twice], phrases, texts, "colour") == explore.PointingGame(1, 1, 0.25)


def test_brightest_patch_is_named_by_its_centre():
    assert brightest_patch(unit([1, 0], [0, 1], [-1, 0], [0, -1]), torch.tensor([0.0, 1.0])) == (0.75, 0.25)
    assert contains((0.5, 0.0, 1.0, 0.5), (0.75, 0.25)) and not contains((0.0, 0.0, 0.5, 1.0), (0.75, 0.25))


@pytest.mark.parametrize(("total", "count"), [(0, 4), (3, 4), (10, 4), (240, 24)])
def test_images_are_spread_evenly(total, count):
    chosen = spread_evenly(total, count)
    assert len(chosen) == min(total, count) and chosen == sorted(set(chosen))


def test_large_embeddings_fit_the_budget_and_keep_their_products():
    torch.manual_seed(0)
    model = type("Model", (), {"logit_scale_finegraind": torch.tensor(3.0)})
    texts = F.normalize(torch.randn(400, 24) @ torch.randn(24, 768), dim=-1)  # phrases differ in few directions
    views = [view((0, 0, 1, 1), F.normalize(torch.randn(576, 768), dim=-1)) for _ in range(24)]
    coded = explore.embeddings("a", model, views, texts)
    assert sum(len(coded[part]) for part in ("patches", "regions", "texts")) <= explore.BUDGET * 4 / 3 + 12
    assert coded["width"] < 768 and coded["kept"] > 0.999
    basis, _ = explore.principal(texts, coded["width"])
    torch.testing.assert_close(
        (views[0].patches @ basis) @ (texts @ basis).T, views[0].patches @ texts.T, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("step", [0, 1, 30])
def test_a_line_of_one_point_is_visible(step):
    drawn = charts.lines("Validation", [charts.Line("a", [(step, 0.4)], "a"), charts.Line("b", [(0, 0), (30, 1)], "b")])
    (first, last) = re.search(r'class="a" points="([\d.]+),[\d.]+ ([\d.]+),[\d.]+"', drawn).groups()
    assert float(last) - float(first) == pytest.approx(20) and float(first) <= 1000 * step / 30 <= float(last) + 0.1


def test_two_runs_side_by_side(on_scenes, tmp_path):
    data = replace(SCENES, box_margin=2.0)
    other = runs.run(tmp_path / "other", data=data, seed=5, figures=FIGURES)
    main([str(on_scenes), str(other)])
    text = text_of(on_scenes / "report-other.html")
    assert "data.box_margin" in text and "A − B, points" in text
    data = json.loads(re.search(r'id="explore-data">(.*?)</script>', text)[1])
    assert [run["name"] for run in data["runs"]] == ["scenes", "other"]
    assert data["runs"][0]["texts"] != data["runs"][1]["texts"]
    assert (on_scenes / "report-other.html").stat().st_size < 5_000_000


def test_two_runs_on_own_shards(tmp_path):
    first = own(tmp_path, ["a mug", "a pot", "a cat"])
    second = runs.run(tmp_path / "second", data=files.read(first).config.data, seed=2)
    assert "boxes with negatives" in text_of(report.write_comparison(first, second)).lower()


def test_runs_without_weights_are_compared_by_their_files(on_scenes, tmp_path):
    other = runs.run(tmp_path / "none", data=SCENES, saved=False)
    assert "No checkpoint yet: none" in text_of(report.write_comparison(on_scenes, other))


def test_seconds_are_those_of_the_steps(on_scenes):
    assert files.read(on_scenes).seconds == pytest.approx(3 * 2 / 4.0)
    assert html.duration(95) == "95 s" and html.duration(400) == "7 min" and html.duration(3 * 3600) == "3.0 h"


CHANGE = """
  const seen = [];
  const view = document.querySelector(".view");
  const state = () => [view.querySelector("canvas").toDataURL(), view.querySelector(".ranks").innerHTML];
  for (const control of document.querySelectorAll("#ask select")) {
    const before = state();
    control.value = control.options[control.selectedIndex > 1 ? 1 : control.options.length - 1].value;
    control.dispatchEvent(new Event("change", { bubbles: true }));
    const after = state();
    seen.push([control.name, before[0] !== after[0], before[1] !== after[1]]);
  }
  const result = document.createElement("output");
  result.id = "result";
  result.textContent = JSON.stringify({ seen, asked: document.getElementById("asked").textContent,
    wide: document.documentElement.scrollWidth, scripts: document.scripts.length, title: document.title });
  document.body.append(result);
"""


def driven(path, folder, script=CHANGE, width=1280):
    found = re.search(r'<output id="result">(.*?)</output>', browser.dom_after(path, script, folder, width), re.DOTALL)
    assert found is not None, "the page's script did not run to its end"
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.mark.browser
@browser.needs_browser
def test_each_menu_moves_heat_and_ranks(on_scenes, tmp_path):
    result = driven(on_scenes / "report.html", tmp_path)
    assert result["seen"] == [[name, True, True] for name in ("size", "finish", "pattern", "colour", "noun")]


@pytest.mark.browser
@browser.needs_browser
def test_a_phrase_of_ones_own_moves_heat_and_hostile_ones_stay_text(tmp_path):
    texts = ["a mug", *runs.HOSTILE]
    result = driven(report.write(own(tmp_path, texts)), tmp_path)
    assert result["seen"] == [["phrase", True, True]]
    assert result["asked"].startswith("Asked for: ") and result["title"] == "own: report"
    assert result["scripts"] == 3  # data, ours, and the test's


@pytest.mark.browser
@browser.needs_browser
def test_page_fits_a_narrow_screen(on_scenes, tmp_path):
    assert driven(on_scenes / "report.html", tmp_path, width=500)["wide"] <= 500


@pytest.mark.browser
@browser.needs_browser
def test_policy_lets_our_script_run(on_scenes, tmp_path):
    assert "The brightest patch lies in" in browser.dom(on_scenes / "report.html", tmp_path)


def test_page_names_its_title_safely(tmp_path):
    assert "<title>&lt;b&gt;</title>" in text_of(page.save(tmp_path / "x.html", "<b>", []))
