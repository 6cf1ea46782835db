"""Published figures beside ours, and rows for Markdown and LaTeX."""

from dataclasses import replace

import pytest

from fgclip_fast import figures_rows
from fgclip_fast.config.model import Vision
from fgclip_fast.evaluation import paper
from fgclip_fast.evaluation.figures import Figures
from fgclip_fast.presets import B16

COCO = "coco captions, all images of the file: first 5 captions, short text path"
BOXES = "coco boxes, crowds included: given boxes, 80 classes, OpenAI's 80 templates, short text path"


def figures(protocol=COCO, asked=5000, **more):
    values = {"image_to_text_r@1": 0.641, "text_to_image_r@1": 0.4482, "top1": 0.523}
    return Figures(values=values, asked=asked, protocol=protocol, **more)


def beside(name="retrieval/coco", config=B16, plain=False, limit=None, **more):
    return paper.beside({name: figures(**more)}, config, plain=plain, limit=limit).get(name)


def test_a_published_row_stands_beside_the_same_model_and_protocol():
    found = beside()
    assert found["model"] == "FG-CLIP B/16" and found["source"] == "arXiv 2505.05071"
    assert found["figures"] == pytest.approx({"image_to_text_r@1": 0.641, "text_to_image_r@1": 0.454})
    assert found["reproduced"] == {"image_to_text_r@1": True, "text_to_image_r@1": False}
    assert beside(plain=True)["figures"]["image_to_text_r@1"] == pytest.approx(0.518)
    assert beside("boxes/coco", protocol=BOXES)["figures"] == {"top1": 0.523}
    large = replace(B16, vision=Vision(image_size=336, patch_size=14, width=1024, layers=24, heads=16, mlp=4096))
    assert beside(config=large)["figures"]["text_to_image_r@1"] == pytest.approx(0.509)


@pytest.mark.parametrize(
    "other",
    [
        {"config": replace(B16, vision=replace(B16.vision, image_size=256))},
        {"config": replace(B16, vision=replace(B16.vision, layers=6))},
        {"limit": 5000}, {"asked": 4999}, {"skipped": {"missing or unreadable image": 1}},
        {"protocol": "karpathy test split: first 5 captions, short text path"},
        {"name": "boxes/coco", "protocol": BOXES.replace("80 classes", "65 classes")},
        {"name": "boxes/coco", "protocol": BOXES.replace("OpenAI's 80", "2")},
        {"name": "retrieval/flickr30k", "asked": 1000, "data": {"file": "results_20130124.token"}},
        {"name": "retrieval/mine"},
    ],
    ids=str,
)  # fmt: skip
def test_another_resolution_model_or_protocol_has_none(other):
    assert beside(**other) is None


@pytest.mark.parametrize(
    ("file", "asked", "share"),
    [("h_attributes_llava", 3545, 0.461), ("2_attributes", 2968, 0.666), ("e_attributes", 1299, 0.687),
     ("shuffle_negatives_llava", 3545, 0.834)],
)  # fmt: skip
def test_each_file_of_fg_ovd_has_its_own(file, asked, share):
    found = beside(f"fg-ovd/{file}", protocol="FG-OVD as in FG-CLIP's script: …", asked=asked)
    assert found["figures"] == {"top1": pytest.approx(share)}
    assert beside(f"fg-ovd/{file}", protocol="FG-OVD as in FG-CLIP's script: …", asked=asked - 1) is None


def described():
    difference = {"against": 0.4, "difference": 0.241, "interval": [0.2, 0.3]}
    coco = {
        **figures().values, "chance": 0.1, "of": {"asked": 5000, "protocol": "a | b"}, "published": beside(),
        "against": {"weights": "old_b16", "differences": {"image_to_text_r@1": difference}},
    }  # fmt: skip
    coco.pop("top1")
    return {"retrieval/coco": coco, "levels": {"top1": None, "of": {}}}


def test_markdown_has_a_row_for_each_main_figure():
    lines = figures_rows.markdown(described()).splitlines()
    assert len(lines) == 4 and all(line.replace("\\|", "").count("|") == 9 for line in lines)
    given = "64.1 | 40.0 | +24.1 (+20.0 … +30.0) | 64.1 (reproduced) | 5000 | a \\| b |"
    assert lines[2] == f"| retrieval/coco | image_to_text_r@1 | {given}"
    assert "| 44.8 |  |  | 45.4 (not yet reproduced here) |" in lines[3]


def test_latex_has_rows_of_the_model_the_other_and_the_published_figures():
    lines = figures_rows.latex("my_run", described()).splitlines()
    assert lines[0] == "% model & retrieval/coco image_to_text_r@1 & retrieval/coco text_to_image_r@1"
    assert lines[1:] == [
        "% retrieval/coco: a | b", r"my\_run & 64.1 & 44.8 \\", r"old\_b16 & 40.0 & -- \\",
        "% published, not yet reproduced here:", r"FG-CLIP B/16 & 64.1 & 45.4 \\",
    ]  # fmt: skip
