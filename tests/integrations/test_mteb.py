"""mteb runs its own task with the model, and finds the scores of our suite."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip_fast.evaluation import compositional
from fgclip_fast.model.fgclip import FGCLIP
from tests.models import MINI

# To import mteb and its thousand tasks takes a minute.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mteb():
    return pytest.importorskip("mteb")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return FGCLIP(MINI)


def pictures(count):
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8)) for _ in range(count)]


def test_winoground_has_the_scores_of_the_suite(mteb, model, tmp_path):
    from datasets import Dataset

    from fgclip_fast.integrations.mteb import FGCLIPEncoder

    images, cases = pictures(16), []
    (tmp_path / "images").mkdir()
    for n, image in enumerate(images):
        image.save(tmp_path / "images" / f"{n}.png")
    for n in range(8):
        texts = {"caption_0": f"thing {n} on another {n + 1}", "caption_1": f"thing {n + 1} on another {n}"}
        cases.append({"id": n, "image_0": f"images/{2 * n}", "image_1": f"images/{2 * n + 1}", **texts})
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, cases)))
    ours = compositional.evaluate(model.eval(), tmp_path / "examples.jsonl").values

    task = mteb.get_task("Winoground")
    columns = {f"image_{k}": [images[2 * n + k] for n in range(8)] for k in range(2)}
    columns |= {f"caption_{k}": [case[f"caption_{k}"] for case in cases] for k in range(2)}
    renamed = dict(zip(sorted(columns), sorted([*task.texts_column_names, *task.images_column_names]), strict=True))
    task.dataset = {"test": Dataset.from_dict({renamed[name]: column for name, column in columns.items()})}
    task.data_loaded = True
    result = mteb.evaluate(FGCLIPEncoder(model), [task], cache=None, co2_tracker=False)
    (scores,) = result.task_results[0].scores["test"]
    # mteb's words are the other way round: its text_acc asks for the image of each text.
    assert scores["image_acc"] == pytest.approx(ours["image"]) and scores["text_acc"] == pytest.approx(ours["text"])
    assert scores["accuracy"] == pytest.approx(ours["group"])


def test_texts_images_and_both_are_embedded(mteb, model, tmp_path):
    from fgclip_fast.integrations.mteb import FGCLIPEncoder

    images, texts = pictures(3), ["a", "b", "a long text"]
    model.save(tmp_path / "mine")
    encoder = FGCLIPEncoder(tmp_path / "mine", kind="long")
    text, image = model.encode_text(texts, kind="long"), model.encode_image(images)
    torch.testing.assert_close(encoder.encode([{"text": texts[:2]}, {"text": texts[2:]}]), text)
    torch.testing.assert_close(encoder.encode([{"image": images}]), image)
    both = encoder.encode([{"text": texts, "image": images}])
    torch.testing.assert_close(both, torch.nn.functional.normalize(text + image, dim=-1))
    assert encoder.encode([]).shape == (0, MINI.projection)
    with pytest.raises(ValueError, match="must hold text or image, got audio"):
        encoder.encode([{"audio": []}])
    meta = encoder.mteb_model_meta
    assert (meta.name, meta.max_tokens) == ("fgclip_fast/mine", 248)
    assert meta.revision == FGCLIPEncoder(model).mteb_model_meta.revision, "of the weights, wherever they lie"
    assert meta.revision != FGCLIPEncoder(FGCLIP(MINI)).mteb_model_meta.revision
    with pytest.raises(ValueError, match="kind must be 'short' or 'long', got 'wide'"):
        FGCLIPEncoder(model, kind="wide")
