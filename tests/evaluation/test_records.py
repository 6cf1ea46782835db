"""Figures on a user's own records against plain loops."""

import io
import json

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fgclip_fast.config import Data, Loss
from fgclip_fast.data import causes
from fgclip_fast.data.shards import ShardWriter
from fgclip_fast.evaluation import records
from fgclip_fast.inputs.batch import Example
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.training.objective import objective
from tests import runs
from tests.models import MINI


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FGCLIP(MINI).eval()


def example(number, regions=2, negatives=3):
    generator = torch.Generator().manual_seed(number)
    texts = [f"thing {number} {i}" for i in range(regions)]
    return Example(
        image=torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=generator),
        short=f"a photo of {number}", long=f"a long text about {number}",
        boxes=torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.4, 0.3, 1.0, 0.9], [0.2, 0.2, 0.9, 0.4]])[:regions],
        region_texts=texts,
        hard_texts=[[text, *(f"other {number} {j}" for j in range(negatives))] if negatives else [] for text in texts],
    )  # fmt: skip


def test_figures_equal_plain_loops(model):
    examples = [example(0), example(1, regions=3), example(2, regions=0), example(3, regions=1, negatives=10)]
    figures = records.evaluate_examples(model, examples, batch_size=3)
    image = F.normalize(model.encode_image(torch.stack([e.image for e in examples])), dim=-1)
    text = F.normalize(model.encode_text([e.short for e in examples]), dim=-1)
    nearest = (image @ text.T).argmax(dim=1).tolist()
    assert figures["short_image_to_text_r@1"] == pytest.approx(sum(n == i for i, n in enumerate(nearest)) / 4)
    right = total = found = shared = phrases = images = 0
    for e in examples:
        regions = model.encode_regions(e.image[None], [e.boxes], unit="fraction")
        for region, texts in zip(regions, e.hard_texts, strict=True):
            cosine = model.encode_text(texts) @ region
            right, total = right + int(cosine.argmax() == 0), total + 1
        if len(e.boxes) > 1:
            cosines = regions @ model.encode_text(e.region_texts).T
            own = torch.arange(len(cosines))
            found, shared = found + int((cosines.argmax(dim=1) == own).sum()), shared + len(own)
            phrases, images = phrases + int((cosines.argmax(dim=0) == own).sum()), images + 1
    assert figures["hard_negative_top1"] == pytest.approx(right / total) and figures["hard_negative_groups"] == total
    assert figures["region_top1_in_image"] == pytest.approx(found / shared) and figures["regions"] == shared
    assert figures["phrase_top1_in_image"] == pytest.approx(phrases / shared)
    assert figures["in_image_chance"] == pytest.approx(images / shared)


def test_equal_texts_of_an_image_are_equally_right(model):
    twins = example(0)._replace(region_texts=["a mug", "a mug"])
    figures = records.evaluate_examples(model, [twins])
    assert figures["region_top1_in_image"] == figures["phrase_top1_in_image"] == 1.0


def test_equal_captions_are_equally_right_whichever_part_they_stand_in(model):
    """Seventeen images and short captions stand twice, of two in different parts; each ties with its twin."""
    twins = [example(number % 17)._replace(long=f"long {number}") for number in range(34)]
    figures = records.evaluate_examples(model, twins)
    once = records.evaluate_examples(model, twins[:17])
    assert figures["short_text_to_image_r@1"] == once["short_text_to_image_r@1"] > 0
    assert figures["short_image_to_text_r@1"] == once["short_image_to_text_r@1"] > 0
    # Long captions differ, so each ties with an image that is not its own. Two twins stand in another part, whose
    # products may round otherwise.
    assert figures["long_text_to_image_r@1"] <= 2 / 34


def test_validation_losses_are_means_of_the_objective(model):
    examples = [example(0), example(1)]
    figures = records.evaluate_examples(model, examples, losses_of=lambda e: objective(e, Loss())._asdict())
    terms = {"short": 1.0, "long": 1.0, "region": 0.1, "hard_negative": 0.5}
    total = sum(weight * figures[f"loss_{name}"] for name, weight in terms.items())
    assert figures["loss_total"] == pytest.approx(total, rel=1e-5)


def test_validation_losses_weigh_each_part_by_what_it_holds(model):
    """33 records: the last is alone, so it has no caption to be taken for another, and three regions of 67."""
    examples = [example(number, regions=2 if number < 32 else 3) for number in range(33)]
    losses_of = lambda e: objective(e, Loss())._asdict()  # noqa: E731
    whole, first, last = (
        records.evaluate_examples(model, own, losses_of=losses_of) for own in (examples, examples[:32], examples[32:])
    )
    assert last["loss_short"] == pytest.approx(0.0, abs=1e-6)
    assert whole["loss_short"] == pytest.approx(32 / 33 * first["loss_short"], rel=1e-6)
    for term in ("region", "hard_negative"):
        mean = (64 * first[f"loss_{term}"] + 3 * last[f"loss_{term}"]) / 67
        assert whole[f"loss_{term}"] == pytest.approx(mean, rel=1e-6)


def test_no_examples_give_no_figures(model):
    assert records.evaluate_examples(model, []) == {"images": 0}
    figures = records.evaluate_examples(model, [example(0, regions=0)])
    assert "hard_negative_top1" not in figures and "region_top1_in_image" not in figures


def test_a_suite_tells_what_it_asked_and_what_it_skipped(model, tmp_path):
    shard = runs.shard(tmp_path / "val.tar", ["a mug", "a pot", "a cat"])
    with ShardWriter(tmp_path / "bad.tar") as writer:
        writer.write("000000", jpg=b"not an image", json=b'{"caption": "a broken image"}')
    data = Data(val=f"{shard}::{tmp_path / 'bad.tar'}")
    figures = records.evaluate(model, data, batch_size=2)
    assert (figures.asked, figures.values["images"], figures.values["hard_negative_groups"]) == (3, 3, 3)
    assert figures.skipped == {"not an image": 1}
    assert records.evaluate(model, data, limit=2).asked == 2


def test_all_regions_are_asked_and_texts_that_lose_their_end_are_counted(model, tmp_path):
    regions = [{"bbox": [0, 0, (i + 1) / 8, 1], "short_expr": f"mug {i}"} for i in range(6)]
    image = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(image, "JPEG")
    fields = {"short_caption": "mug " * 90, "caption": "mug", "bbox_info": regions}
    with ShardWriter(tmp_path / "val.tar") as writer:
        writer.write("000000", jpg=image.getvalue(), json=json.dumps(fields).encode())
    figures = records.evaluate(model, Data(val=str(tmp_path / "val.tar"), regions=2))
    assert figures.values["regions"] == 6 and "all regions" in figures.protocol
    assert figures.skipped == {causes.SHORT_CUT: 1}
