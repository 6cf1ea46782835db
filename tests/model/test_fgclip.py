"""What people call: pictures, strings and boxes in, embeddings out, one clear error for each mistake."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip_fast.inputs.image import normalize
from fgclip_fast.model import fgclip as module
from fgclip_fast.model.fgclip import FGCLIP
from tests.models import TINY as CONFIG


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FGCLIP(CONFIG)


def pictures(*sizes):
    """PIL images of the given (width, height)."""
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def test_has_what_users_need(model):
    assert model.config == CONFIG
    assert model.device == torch.device("cpu")
    assert model.transform(pictures((30, 20))[0]).shape == (3, 48, 48)
    assert model.tokenizer(["a mug"]).offsets.tolist() == [0, 4]


def test_one_picture_in_every_form_has_one_embedding(model, tmp_path):
    picture = pictures((48, 48))[0]
    picture.save(tmp_path / "a.png")
    pixels = model.transform(picture)
    forms = [picture, [picture], str(tmp_path / "a.png"), [tmp_path / "a.png"], pixels, pixels[None], [pixels]]
    for form in [*forms, normalize(pixels[None])]:
        torch.testing.assert_close(model.encode_image(form), model.encode_image(picture))


def test_pictures_of_any_size_are_squashed(model):
    few = pictures((30, 20), (90, 60), (1, 1))
    assert model.encode_image(few).shape == (3, 24)
    tall = torch.stack([model.transform(x) for x in few])
    torch.testing.assert_close(model.encode_image(tall), model.encode_image(few))


def test_embeddings_have_unit_length_if_wanted(model):
    few = pictures((30, 20), (90, 60))
    for encode, inputs in ((model.encode_image, few), (model.encode_dense, few), (model.encode_text, ["a", "b c"])):
        free = encode(inputs, normalize=False)
        torch.testing.assert_close(encode(inputs), torch.nn.functional.normalize(free, dim=-1))
        assert not free.requires_grad


def test_gradients_flow_where_they_are_asked_for(model):
    images, box, texts = pictures((30, 20), (48, 48)), [[(2, 3, 20, 19)], []], ["a mug", "a cat", "a mug"]
    calls = {
        "image": lambda **options: model.encode_image(images, **options),
        "dense": lambda **options: model.encode_dense(images, **options),
        "regions": lambda **options: model.encode_regions(images, box, **options),
        "short": lambda **options: model.encode_text(texts, **options),
        "long": lambda **options: model.encode_text(texts, kind="long", **options),
    }
    for name, encode in calls.items():
        trained = encode(gradients=True)
        assert not encode().requires_grad and trained.requires_grad, name
        torch.testing.assert_close(trained.detach(), encode(), rtol=0, atol=1e-6)
        with torch.no_grad():
            assert not encode(gradients=True).requires_grad, name


def test_a_text_that_comes_twice_counts_twice_in_the_gradient(model):
    weight = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
    table, texts = model.text_projection.weight, ["a mug", "a cat", "a mug"]
    (joint,) = torch.autograd.grad((weight * model.encode_text(texts, gradients=True)).sum(), table)
    single = [(row * model.encode_text([text], gradients=True)).sum() for row, text in zip(weight, texts, strict=True)]
    torch.testing.assert_close(joint, torch.autograd.grad(sum(single), table)[0], rtol=1e-4, atol=1e-5)


def test_nothing_in_is_nothing_out(model):
    assert model.encode_image([]).shape == (0, 24)
    assert model.encode_dense([]).shape == (0, 3, 3, 24)
    assert model.encode_regions([], []).shape == (0, 24)
    assert model.encode_regions(pictures((30, 20)), [[]]).shape == (0, 24)
    assert model.encode_text([]).shape == (0, 24)


@pytest.mark.parametrize("kind", ["short", "long"])
def test_texts_keep_their_order_however_they_are_packed(model, kind, monkeypatch):
    texts = ["two dogs", "a red mug", "", "a red mug", "a red mug on a table", "zebra " * 20]
    alone = torch.cat([model.encode_text([text], kind) for text in texts])
    torch.testing.assert_close(model.encode_text(texts, kind), alone, atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(module, "TOKENS", 9)  # several passes; the last text alone is more
    torch.testing.assert_close(model.encode_text(texts, kind), alone, atol=1e-5, rtol=1e-4)


def test_kinds_have_tables_and_projections_of_their_own(model):
    assert not torch.allclose(model.encode_text(["a mug"]), model.encode_text(["a mug"], kind="long"))


def test_equal_texts_are_encoded_once_and_so_have_equal_bits_in_several_passes(model, monkeypatch):
    monkeypatch.setattr(module, "TOKENS", 12)
    encode, encoded = model.encode_tokens, []
    monkeypatch.setattr(model, "encode_tokens", lambda texts: encoded.append(texts.shorts) or encode(texts))
    embeddings = model.encode_text(["a red mug", *(f"a blue boat of kind {n}" for n in range(9)), "A red  mug"])
    assert len(encoded) > 1 and sum(encoded) == 10
    assert torch.equal(embeddings[0], embeddings[-1]) and len(embeddings) == 11


def test_warns_once_when_a_text_is_cut():
    model = FGCLIP(CONFIG)
    with pytest.warns(UserWarning, match="1 of 2 texts were cut to 77 tokens; kind='long' takes up to 248") as told:
        model.encode_text(["mug " * 80, "mug " * 75])
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_text(["mug " * 80])
        model.encode_text(["mug " * 246], kind="long")
    with pytest.warns(UserWarning, match="1 of 1 texts were cut to 248 tokens$"):
        model.encode_text(["mug " * 247], kind="long")


def test_regions_follow_their_images(model, monkeypatch):
    few = pictures((48, 48), (96, 24), (48, 48))
    boxes = [[[0, 0, 48, 48]], [], [[16, 32, 32, 48], [1, 2, 40, 30]]]
    together = model.encode_regions(few, boxes)
    one_by_one = [model.encode_regions([x], [own]) for x, own in zip(few, boxes, strict=True)]
    torch.testing.assert_close(together, torch.cat(one_by_one))
    torch.testing.assert_close(together[1], model.encode_dense(few)[2, 2, 1], atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(module, "IMAGES", 2)
    torch.testing.assert_close(model.encode_regions(few, boxes), together)


def test_pixels_are_those_of_the_picture_as_given(model):
    wide = pictures((96, 24))
    pixel = model.encode_regions(wide, [torch.tensor([[24.0, 6.0, 72.0, 18.0]])])
    fraction = model.encode_regions(wide, [np.array([[0.25, 0.25, 0.75, 0.75]])], unit="fraction")
    torch.testing.assert_close(pixel, fraction)


def test_rank_gives_probabilities_best_first(model):
    picture, texts = pictures((60, 40))[0], ["a mug", "a dog", "a tree"]
    for ranked, shown in (
        (model.rank(picture, texts), model.encode_image(picture)),
        (model.rank(picture, texts, box=(5, 5, 50, 30)), model.encode_regions([picture], [[(5, 5, 50, 30)]])),
    ):
        names, probabilities = zip(*ranked, strict=True)
        assert list(probabilities) == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
        expected = (model.logit_scale.exp() * shown @ model.encode_text(names).T).softmax(1)[0]
        torch.testing.assert_close(torch.tensor(probabilities), expected.detach())


@pytest.mark.parametrize(
    ("boxes", "unit", "message"),
    [
        ([], "pixel", "boxes must be one .n, 4. an image, got 0 for 1 images"),
        ([[[1, 2, 3, 4, 5]]], "pixel", r"boxes of image 0 must be \[n, 4\] xyxy, got \[1, 5\]"),
        ([[1, 2, 3, 4]], "pixel", r"boxes of image 0 must be \[n, 4\] xyxy, got \[4\]"),
        ([[[1, 2, 9, 9], [5, 2, 5, 4]]], "pixel", r"box 1 of image 0 must have x1 < x2 .*, got \[5.0, 2.0, 5.0, 4.0\]"),
        ([[[1, 2, float("nan"), 4]]], "pixel", "box 0 of image 0 must be finite, got"),
        ([[[70, 2, 80, 4]]], "pixel", r"box 0 of image 0 must cover some of its image, got .*; image of 60 x 40"),
        ([[[10, 2, 20, 4]]], "fraction", r"box 0 of image 0 must cover some of its image, got .* \(fraction xyxy"),
        ([[[1, 2, 3, 4]]], "pixels", "unit must be 'pixel' or 'fraction', got 'pixels'"),
    ],
)
def test_error_names_the_box(model, boxes, unit, message):
    with pytest.raises(ValueError, match=f"encode_regions: {message}"):
        model.encode_regions(pictures((60, 40)), boxes, unit=unit)


def test_error_names_the_argument(model):
    with pytest.raises(ValueError, match="texts must be a list of strings, got one string"):
        model.encode_text("a mug")
    with pytest.raises(ValueError, match="kind must be 'short' or 'long', got 'box'"):
        model.encode_text(["a mug"], kind="box")
    with pytest.raises(ValueError, match=r"model: image must be \[B, 3, 48, 48\], got \[1, 3, 8, 8\]"):
        model.encode_image(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="images: a tensor must be"):
        model.encode_image(torch.zeros(8, 8))
    with pytest.raises(ValueError, match="image: must be a path, a PIL image, a uint8 tensor or array, got int"):
        model.encode_image([3])
    with pytest.raises(ValueError, match="must be a path, a PIL image, a uint8 tensor or array, got int"):
        model.encode_regions([3], [[]])
    with pytest.raises(ValueError, match="rank: texts must hold at least one"):
        model.rank(pictures((60, 40))[0], [])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        model.encode_image("nowhere.jpg")


def test_an_array_of_numpy_is_an_image_as_pillow_makes_one_of_it():
    model = FGCLIP(CONFIG)
    array = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    assert model.encode_image(array).equal(model.encode_image(Image.fromarray(array)))
    assert model.encode_image(np.stack([array, array])).shape == (2, 24)
    with pytest.raises(ValueError, match=r"an array must be uint8 \[H, W, 3\] or \[H, W\], got float64"):
        model.encode_image(array / 255)


def test_floats_from_0_to_1_are_told_once():
    model = FGCLIP(CONFIG)
    with pytest.warns(UserWarning, match="taken as normalised; these lie from 0 to 1, so pass uint8"):
        model.encode_image(torch.rand(1, 3, 48, 48))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_image(torch.rand(1, 3, 48, 48))
