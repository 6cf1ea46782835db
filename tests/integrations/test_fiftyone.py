"""FiftyOne's interface of a model, and all patches of an image from one pass.

The views are lists of samples, since a FiftyOne data set needs a MongoDB server. Models and labels are FiftyOne's own
where it is installed, else stand-ins with its documented interface.
"""

import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip_fast.model.fgclip import FGCLIP
from tests.models import MINI

NAME = "fgclip_fast.integrations.fiftyone"
BOXES = [[[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0]], [], [[0.25, 0.25, 0.5, 0.75]], [[0.2, 0.2, 0.0, 0.1]]]


class Label:
    """A stand-in for a label: fields by name, others set like items."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


class Model:
    """A stand-in for fiftyone.core.models.Model."""

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None: ...


class Sample(dict):
    """A sample of a view: fields by name, and what stands in its attributes."""

    def __init__(self, id: str, filepath: str, **fields: Any) -> None:
        super().__init__(fields)
        self.id, self.filepath, self.saved = id, filepath, 0

    def save(self) -> None:
        self.saved += 1


@pytest.fixture(scope="module")
def fiftyone():
    """The labels of FiftyOne and our integration; stand-ins leave sys.modules as it was."""
    if importlib.util.find_spec("fiftyone"):
        import fiftyone.core.labels as labels

        yield labels, importlib.import_module(NAME)
        return
    labels, models = ModuleType("fiftyone.core.labels"), ModuleType("fiftyone.core.models")
    for name in ("Detection", "Detections", "Polyline", "Polylines", "Classification"):
        setattr(labels, name, type(name, (Label,), {}))
    for name in ("EmbeddingsMixin", "PromptMixin"):
        setattr(models, name, type(name, (), {}))
    models.Model = Model
    parts = {"fiftyone": ModuleType("fiftyone"), "fiftyone.core": ModuleType("fiftyone.core")}
    with pytest.MonkeyPatch.context() as patch:
        for module in (*parts.values(), labels, models):
            patch.setitem(sys.modules, module.__name__, module)
        patch.delitem(sys.modules, NAME, raising=False)
        yield labels, importlib.import_module(NAME)
        del sys.modules[NAME]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FGCLIP(MINI).eval()


@pytest.fixture
def view(tmp_path, fiftyone):
    """Four images of other sizes: two boxes, none, one as a polyline, and one without area."""
    labels, draw, samples = fiftyone[0], np.random.default_rng(0), []
    for number, boxes in enumerate(BOXES):
        file = tmp_path / f"{number}.png"
        Image.fromarray(draw.integers(0, 256, (40 + number, 60, 3), dtype=np.uint8)).save(file)
        things: Any = labels.Detections(detections=[labels.Detection(label="x", bounding_box=box) for box in boxes])
        if number == 2:
            things = labels.Polyline(label="x", points=[[(0.25, 0.5), (0.75, 0.25)], [(0.5, 1.0)]])
        samples.append(Sample(str(number), str(file), things=things))
    return samples


def test_images_and_prompts_are_the_models_own(fiftyone, model, view):
    wrapped = fiftyone[1].FGCLIPModel(model)
    pixels = [np.array(Image.open(sample.filepath)) for sample in view]
    expected = model.encode_image([sample.filepath for sample in view]).numpy()
    with wrapped:
        np.testing.assert_allclose(wrapped.embed_all(pixels), expected, atol=1e-6)
        np.testing.assert_allclose(wrapped.embed(pixels[0]), expected[0], atol=1e-6)
        with_alpha = np.concatenate([pixels[0], np.full((40, 60, 1), 7, np.uint8)], axis=2)
        np.testing.assert_allclose(wrapped.embed(with_alpha), expected[0], atol=1e-6)
        texts = ["a mug", "a cat"]
        np.testing.assert_allclose(wrapped.embed_prompts(texts), model.encode_text(texts), atol=1e-6)
        long = fiftyone[1].FGCLIPModel(model, "long").embed_prompt("a mug")
        np.testing.assert_allclose(long, model.encode_text(["a mug"], "long")[0], atol=1e-6)
    told = wrapped.media_type, wrapped.has_embeddings, wrapped.can_embed_prompts, wrapped.ragged_batches
    assert told == ("image", True, True, True) and wrapped.transforms is None and wrapped.preprocess


def test_patches_come_from_one_pass_over_each_image(fiftyone, model, view, monkeypatch, caplog):
    passes: list[int] = []
    encode = FGCLIP.encode_pixels
    monkeypatch.setattr(FGCLIP, "encode_pixels", lambda self, x, *rest: passes.append(len(x)) or encode(self, x, *rest))
    found = fiftyone[1].FGCLIPModel(model).embed_patches(view, "things", batch_size=3)
    assert passes == [2]  # of the first three the images with boxes; the fourth has a bad one alone
    assert found["1"] is None and found["3"] is None and len(found["0"]) == 2
    assert "3.png is left out" in caplog.text and "must have x1 < x2" in caplog.text
    corners = [[(x, y, x + w, y + h) for x, y, w, h in BOXES[number]] for number in (0, 2)]
    expected = model.encode_regions([view[0].filepath, view[2].filepath], corners, unit="fraction")
    np.testing.assert_allclose(np.concatenate([found["0"], found["2"]]), expected, atol=1e-5)


def test_an_image_that_cannot_be_read_costs_itself(fiftyone, model, view, tmp_path, caplog):
    (tmp_path / "0.png").write_bytes(b"no image")
    found = fiftyone[1].FGCLIPModel(model).embed_patches(view, "things")
    assert found["0"] is None and found["2"] is not None and "0.png" in caplog.text


def test_patches_are_stored_in_their_labels(fiftyone, model, view):
    wrapped = fiftyone[1].FGCLIPModel(model)
    assert wrapped.embed_patches(view, "things", embeddings_field="fgclip") is None
    expected = wrapped.embed_patches(view, "things")
    stored = [label["fgclip"] for label in view[0]["things"].detections]
    np.testing.assert_allclose(stored, expected["0"], atol=1e-6)
    np.testing.assert_allclose(view[2]["things"]["fgclip"], expected["2"][0], atol=1e-6)
    assert [sample.saved for sample in view] == [1, 0, 1, 0]


def test_a_field_of_other_labels_is_refused(fiftyone, model, view):
    view[1]["things"] = fiftyone[0].Classification(label="x")
    with pytest.raises(ValueError, match="things must hold detections or polylines, got Classification"):
        fiftyone[1].FGCLIPModel(model).embed_patches(view, "things")


def test_a_missing_package_gives_the_pip_line():
    for name in ("fiftyone", "sentence_transformers", "transformers"):
        with pytest.MonkeyPatch.context() as patch:
            for loaded in [x for x in sys.modules if x == name or x.startswith(f"{name}.")]:
                patch.delitem(sys.modules, loaded)
            patch.setitem(sys.modules, name, None)
            patch.delitem(sys.modules, f"fgclip_fast.integrations.{name}", raising=False)
            line = rf"pip install 'fgclip_fast\[{name.replace('_', '-')}\]'"
            with pytest.raises(ImportError, match=line):
                importlib.import_module(f"fgclip_fast.integrations.{name}")
