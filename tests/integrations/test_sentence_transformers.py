"""sentence-transformers encodes by the model, trains it through its own losses, and saves and loads it."""

import numpy as np
import pytest
import torch
from PIL import Image

import fgclip_fast
from fgclip_fast.model.fgclip import FGCLIP
from tests.models import MINI

sentence_transformers = pytest.importorskip("sentence_transformers")
from sentence_transformers import SentenceTransformer  # noqa: E402
from sentence_transformers.losses import (  # noqa: E402
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)

from fgclip_fast.integrations.sentence_transformers import FGCLIPModule  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:encode_text. 1 of 5 texts were cut")
COLOURS = ["red", "green", "blue", "white"]
TEXTS = ["a red mug", "two dogs on a sofa, looking at a cat", "", "a red mug", "a mug " * 60]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return FGCLIP(MINI).eval()


@pytest.fixture
def images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return [Image.fromarray(pixels), str(tmp_path / "a.png"), Image.new("RGB", (9, 30))]


def check(sentences, model, images):
    """Every kind of embedding is the model's own."""
    expected = model.encode_text(TEXTS), model.encode_text(TEXTS, kind="long"), model.encode_image(images)
    found = (
        sentences.encode(TEXTS, normalize_embeddings=True, batch_size=2),
        sentences.encode(TEXTS, normalize_embeddings=True, kind="long"),
        sentences.encode(images, normalize_embeddings=True),
    )
    for theirs, ours in zip(found, expected, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)


def test_texts_and_images_are_encoded_saved_and_loaded(model, images, tmp_path):
    sentences = SentenceTransformer(modules=[FGCLIPModule(model)], device="cpu")
    assert (sentences.get_embedding_dimension(), sentences.max_seq_length) == (8, 77)
    check(sentences, model, images)
    sentences.save(str(tmp_path / "saved"), create_model_card=False)
    check(SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu"), model, images)
    back = fgclip_fast.load(tmp_path / "saved").state_dict()
    assert all(value.equal(model.state_dict()[name]) for name, value in back.items())


def test_the_path_of_texts_is_kept(model, tmp_path):
    SentenceTransformer(modules=[FGCLIPModule(model, kind="long")], device="cpu").save(str(tmp_path))
    back = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    assert back.max_seq_length == 248
    np.testing.assert_allclose(back.encode(TEXTS), model.encode_text(TEXTS, "long", normalize=False), atol=1e-5)


def test_a_folder_that_the_model_saved_loads_without_a_word(model, images, tmp_path):
    model.save(tmp_path)
    plain = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(
        plain.encode(TEXTS[:4], normalize_embeddings=True), model.encode_text(TEXTS[:4]), atol=1e-5
    )
    # transformers' image processor resizes by torchvision, up to 2 of 255 off Pillow.
    np.testing.assert_allclose(plain.encode(images, normalize_embeddings=True), model.encode_image(images), atol=5e-3)


@pytest.mark.parametrize("name", ["plain", "cached"])
def test_its_losses_train_both_towers_through_the_module(model, images, name):
    sentences = SentenceTransformer(modules=[FGCLIPModule(model)], device="cpu").train()
    texts = ["a red mug", "two dogs", "a black square"]
    columns = [sentences.preprocess(images), sentences.preprocess(texts)]
    if name == "plain":
        loss = MultipleNegativesRankingLoss(sentences, scale=20.0)(columns, None)
    else:
        loss = CachedMultipleNegativesRankingLoss(sentences, scale=20.0, mini_batch_size=2)(columns, None)
    (3.0 * loss).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    logits = 20.0 * model.encode_image(images, gradients=True) @ model.encode_text(texts, gradients=True).T
    (3.0 * torch.nn.functional.cross_entropy(logits, torch.arange(3))).backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert found.keys() == expected.keys() and {"text_projection.weight", "visual_projection.weight"} <= found.keys()
    for name, gradient in expected.items():
        floor = 1e-5 * float(gradient.abs().max()) + 1e-6
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=floor, msg=lambda text, name=name: name + text)


def test_its_trainer_teaches_texts_their_images(model, tmp_path):
    Dataset = pytest.importorskip("datasets").Dataset  # which the trainer needs
    sentences = SentenceTransformer(modules=[FGCLIPModule(model)], device="cpu")
    images = [Image.new("RGB", (32, 32), colour) for colour in COLOURS]
    texts = [f"a {colour} square" for colour in COLOURS]
    arguments = sentence_transformers.SentenceTransformerTrainingArguments(
        str(tmp_path), max_steps=30, per_device_train_batch_size=len(images), learning_rate=1e-3,
        report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    data, loss = Dataset.from_dict({"image": images, "text": texts}), MultipleNegativesRankingLoss(sentences)
    trainer = sentence_transformers.SentenceTransformerTrainer(sentences, arguments, data, loss=loss)
    trainer.train()
    found = sentences.encode(images) @ sentences.encode(texts).T
    assert found.argmax(1).tolist() == list(range(len(images)))


def test_what_cannot_be_is_refused(model, images):
    sentences = SentenceTransformer(modules=[FGCLIPModule(model)], device="cpu")
    with pytest.raises(ValueError, match="cannot encode"):
        sentences.encode([images[0], "a mug"])
    with pytest.raises(ValueError, match="kind must be 'short' or 'long', got 'medium'"):
        sentences.encode(["a mug"], kind="medium")
    with pytest.raises(ValueError, match="kind must be 'short' or 'long', got 'medium'"):
        FGCLIPModule(model, kind="medium")
