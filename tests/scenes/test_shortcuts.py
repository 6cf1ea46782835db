"""A trained model scores near chance if it does not see the thing: `FGCLIP_RUN=runs/last pytest -m slow tests/scenes`.

The default tests check this on the questions themselves, attribute by attribute; here a trained network tries.
"""

import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

import fgclip_fast
from fgclip_fast.evaluation import fg_ovd
from fgclip_fast.ops import hard_negative_scores
from fgclip_fast.scenes.locate import embedded

RUN = Path(os.environ.get("FGCLIP_RUN", "runs/last"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not RUN.exists(), reason=f"{RUN} is not a run; set FGCLIP_RUN"),
]
QUESTIONS = 300


@pytest.fixture(scope="module")
def model():
    return fgclip_fast.load(str(RUN)).eval()


def regions_of(model, images, questions):
    boxes = [torch.tensor([question.box]) for question in questions]
    return model.encode_regions(torch.stack([model.transform(image) for image in images]), boxes, unit="fraction")


@pytest.mark.parametrize("level", ["hard", "medium", "easy", "noun", "bare-noun", "colour"])
def test_neither_the_box_nor_another_thing_solves_a_level(model, level):
    folder = embedded() / "levels"
    lines = list(fg_ovd.read(folder / "unseen" / f"{level}.jsonl", folder / "images", Counter()))[:QUESTIONS]
    questions = [line.question for line in lines]
    texts = model.encode_text([text for q in questions for text in q.texts])
    offsets = torch.tensor([0, *(len(q.texts) for q in questions)]).cumsum(0)
    own = regions_of(model, [line.image for line in lines], questions)
    grey = regions_of(model, [Image.new("RGB", (96, 96), (128, 128, 128))] * len(questions), questions)
    other = own.roll(len(questions) // 2 + 7, dims=0)
    top1 = {
        name: hard_negative_scores(regions, texts, offsets).correct.float().mean().item()
        for name, regions in {"own": own, "grey": grey, "other": other}.items()
    }
    print(level, top1)
    assert top1["grey"] <= 0.2 and top1["other"] <= 0.2
    assert top1["own"] > 2 * max(top1["grey"], top1["other"])
