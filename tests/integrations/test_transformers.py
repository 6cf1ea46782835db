"""transformers' ``AutoModel`` loads a saved folder whole, with gradients, and leaves other CLIPs alone."""

import copy

import pytest
import torch
import torch.nn.functional as F

import fgclip_fast
from fgclip_fast.export.hf import write_hf
from fgclip_fast.model.fgclip import FGCLIP
from tests.models import MINI

transformers = pytest.importorskip("transformers")
from fgclip_fast.integrations.transformers import FGCLIPModel  # noqa: E402

TEXTS = ["a red mug", "two dogs on a sofa, looking at a cat", "", "a red mug"]
BOXES = [[(0.1, 0.2, 0.8, 0.9), (0.0, 0.0, 1.0, 1.0)], [], [(0.3, 0.3, 0.4, 0.9)]]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = FGCLIP(MINI).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases too, which start at zero
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    return transformers.AutoModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("written", ["save", "export"])
def test_a_saved_folder_loads_whole(model, folder, tokenizer, pixels, tmp_path, written):
    if written == "export":
        folder = tmp_path / "hf"
        write_hf(model, folder)
    loaded = transformers.AutoModel.from_pretrained(folder)
    assert type(loaded) is FGCLIPModel and not loaded.training
    short = tokenizer(TEXTS, padding=True, return_tensors="pt")
    long = tokenizer([*TEXTS, "a " * 150], padding="max_length", max_length=248, truncation=True, return_tensors="pt")
    pairs = {
        "image": (loaded.get_image_features(pixels), model.encode_image(pixels, normalize=False)),
        "short": (loaded.get_text_features(**short), model.encode_text(TEXTS, normalize=False)),
        "long": (
            loaded.get_text_features(long["input_ids"], walk_short_pos=False),
            model.encode_text([*TEXTS, "a " * 150], kind="long", normalize=False),
        ),
        "dense": (loaded.get_image_dense_features(pixels), model.encode_dense(pixels, normalize=False).flatten(1, 2)),
        "regions": (
            loaded.get_image_box_roi_features(pixels, BOXES),
            model.encode_regions(pixels, BOXES, unit="fraction", normalize=False),
        ),
    }
    for name, (theirs, ours) in pairs.items():
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_loss_logits_and_gradients_are_those_of_a_clip(folder, tokenizer, pixels):
    ours = transformers.AutoModel.from_pretrained(folder).train()
    theirs = transformers.CLIPModel.from_pretrained(folder).train()
    inputs = {**tokenizer(TEXTS[:3], padding=True, return_tensors="pt"), "pixel_values": pixels, "return_loss": True}
    out, expected = ours(**inputs), theirs(**inputs)
    for name in ("loss", "logits_per_image", "logits_per_text", "text_embeds", "image_embeds"):
        torch.testing.assert_close(getattr(out, name), getattr(expected, name), rtol=1e-4, atol=1e-5)
    out.loss.backward()
    expected.loss.backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        floor = 1e-5 * float(parameter.grad.abs().max()) + 1e-6  # of k_proj.bias the gradient is zero in theory
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=0, atol=floor)


def test_other_clips_stay_transformers_own(folder, tmp_path):
    transformers.CLIPModel.from_pretrained(folder).save_pretrained(tmp_path)
    assert type(transformers.AutoModel.from_pretrained(tmp_path)) is transformers.CLIPModel
    with pytest.raises(ValueError, match=r"lacks 5 tensors, the first: logit_scale_finegraind; fgclip_fast.load makes"):
        FGCLIPModel.from_pretrained(tmp_path)


def test_what_transformers_saves_is_ours(model, folder, tmp_path):
    loaded = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        loaded.logit_scale.fill_(1.5)
    loaded.save_pretrained(tmp_path)
    back = fgclip_fast.load(tmp_path).state_dict()
    assert back.pop("logit_scale") == 1.5
    assert all(value.equal(model.state_dict()[name]) for name, value in back.items())


def test_both_faces_have_one_set_of_weights(loaded):
    first = loaded
    second = copy.deepcopy(first)
    second.logit_scale = torch.nn.Parameter(torch.tensor(7.0))
    second.visual_projection = torch.nn.Linear(16, 8, bias=False)
    assert second.fgclip.logit_scale == 7.0 and second.fgclip.visual_projection is second.visual_projection
    assert first.fgclip.logit_scale != 7.0 and first.fgclip.visual_projection is first.visual_projection
    assert len(list(second.parameters())) == len(list(second.fgclip.parameters()))


def test_a_half_model_multiplies_in_half_and_normalises_in_fp32(model, folder, tokenizer):
    half = transformers.AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
    block = half.text_model.encoder.layers[0]
    assert block.mlp.fc1.weight.dtype == torch.bfloat16 and block.layer_norm1.weight.dtype == torch.float32
    text = half.get_text_features(**tokenizer(TEXTS, padding=True, return_tensors="pt"))
    expected = fgclip_fast.load(folder, dtype="bfloat16").encode_text(TEXTS)
    torch.testing.assert_close(F.normalize(text, dim=-1), expected)


@pytest.mark.parametrize(
    ("ids", "short", "message"),
    [
        (torch.tensor([[49406, 5, 49407], [49406, 5, 6]]), True, r"each row must hold .*49407; row 1 does not"),
        (torch.tensor([49406, 49407]), True, r"must be integers \[N, L\], got torch.int64 \[2\]"),
        (torch.ones(2, 3), True, r"must be integers \[N, L\], got torch.float32"),
        (torch.tensor([[49406] * 77 + [49407]]), True, "of the short path has at most 77 tokens, got one of 78"),
        (torch.tensor([[49406] * 248 + [49407]]), False, "of the long path has at most 248 tokens, got one of 249"),
    ],
    ids=["no end", "flat", "floats", "short", "long"],
)
def test_ids_that_are_no_texts_are_refused(loaded, ids, short, message):
    with pytest.raises(ValueError, match=message):
        loaded.get_text_features(ids, walk_short_pos=short)
