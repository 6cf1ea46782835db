"""Both towers compute what transformers' CLIPModel does, in any layout, with any option."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from fgclip_fast.inputs.batch import replace_leaves
from fgclip_fast.inputs.image import normalize
from fgclip_fast.inputs.texts import Texts, join
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.model import block
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.text import pad
from fgclip_fast.ops import prefix_tree
from fgclip_fast.ops.tree import EOS, LONG_LENGTH
from tests.models import TINY as SMALL

TEXTS = ["a red mug", "", "a red mug on a table", "a red <|endoftext|> mug", "a red mug", "two dogs " * 30]


def model_of(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return FGCLIP(config)


def images(B=3):
    return torch.randint(0, 256, (B, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def some_boxes():
    boxes = torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.0, 0.0, 1.0, 1.0], [0.3, 0.3, 0.35, 0.4]])
    return boxes, torch.tensor([0, 2, 2])


def texts():
    """TEXTS on the short path, and again on the long one."""
    return join(Tokenizer()(TEXTS), Tokenizer()(TEXTS, LONG_LENGTH))


def gradients(model, outputs):
    """Of the outputs' dot products with fixed noise."""
    generator = torch.Generator().manual_seed(1)
    model.zero_grad()
    sum((x * torch.randn(x.shape, generator=generator)).sum() for x in outputs).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def embed(model, texts, device="cpu"):
    pixels = (x.to(device) for x in (images(), *some_boxes()))
    return [*model.to(device).encode_pixels(*pixels), *model.encode_tokens(texts)]


def assert_same(one, other, rtol=1e-5):
    assert one.keys() == other.keys()
    for name in one:
        largest = other[name].abs().max()
        assert (one[name] - other[name]).abs().max() <= rtol * largest + 1e-6, name


def test_features_are_those_of_transformers():
    pytest.importorskip("transformers")
    from transformers import CLIPConfig, CLIPModel

    ours, theirs = model_of(), CLIPModel(CLIPConfig(**hugging_face(SMALL))).eval()
    theirs.load_state_dict({name: value for name, value in ours.state_dict().items() if name in theirs.state_dict()})
    ids = pad(*Tokenizer()(TEXTS))
    with torch.no_grad():
        expected = theirs(input_ids=ids.long(), pixel_values=normalize(images()))
        text, _ = ours.encode_tokens(texts())
        image = ours.encode_image(images())
    torch.testing.assert_close(torch.nn.functional.normalize(text), expected.text_embeds)
    torch.testing.assert_close(image, expected.image_embeds)


def hugging_face(config):
    def tower(part):
        names = {"width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads"}
        return {theirs: getattr(part, ours) for ours, theirs in {**names, "mlp": "intermediate_size"}.items()}

    square = {"image_size": config.vision.image_size, "patch_size": config.vision.patch_size}
    text = {**tower(config.text), "eos_token_id": EOS}
    return {"text_config": text, "vision_config": {**tower(config.vision), **square}, "projection_dim": 24}


@pytest.mark.parametrize("packing", ["prefix-tree", "padding-free"])
def test_packed_texts_are_those_of_padded_ones(packing):
    model = model_of()
    padded = embed(model, texts())
    packed = embed(model, texts().packed(packing))
    for ours, theirs in zip(packed, padded, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert_same(gradients(model, packed), gradients(model, embed(model, texts())))


def assert_changes_nothing(option, value):
    plain, other = model_of(), model_of(replace(SMALL, **{option: value}))
    assert plain.state_dict().keys() == other.state_dict().keys()
    packed = texts().packed()
    assert_same(gradients(other, embed(other, packed)), gradients(plain, embed(plain, packed)))


@pytest.mark.parametrize("parts", ["mlp", "blocks"])
def test_recomputing_changes_nothing(parts):
    assert_changes_nothing("recompute", parts)


@pytest.mark.parametrize(
    "backend", ["eager", *(pytest.param(name, marks=pytest.mark.slow) for name in ("aot_eager", "inductor"))]
)
def test_compile_changes_nothing(monkeypatch, backend):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))  # inductor takes 20 s
    assert_changes_nothing("compile", True)


def test_compiles_at_most_twice_more_while_the_number_of_tokens_changes(monkeypatch):
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    block._compiled.cache_clear()
    model = model_of(replace(SMALL, compile=True))
    compiled = []
    for step in range(20):
        tokens = Tokenizer()([f"{number} red mugs on table {step}" for number in range(9 + 7 * step)])
        model.encode_tokens(Texts(*tokens, shorts=len(tokens.offsets) - 1).packed())
        compiled.append(counter.frame_count)
    block._compiled.cache_clear()
    assert compiled[0] > 0 and compiled[-1] - compiled[0] <= 2


def test_config_chooses_who_attends(device):  # on a CPU, Triton's interpreter does
    packed = texts()._replace(tree=prefix_tree(*texts()[:3], multiple=1))
    on_device = replace_leaves(packed, torch.Tensor, lambda x: x.to(device))
    chosen, tiled = (embed(model_of(replace(SMALL, attention=name)), on_device, device) for name in ("triton", "sdpa"))
    for ours, theirs in zip(chosen, tiled, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="backend 'flash' does not run here"):
        embed(model_of(replace(SMALL, attention="flash")), packed)


def test_gradients_repeat_bit_for_bit():
    model, packed = model_of(), texts().packed()
    first = gradients(model, embed(model, packed))
    for _ in range(5):
        again = gradients(model, embed(model, packed))
        assert all(torch.equal(again[name], first[name]) for name in first)


def test_image_features_do_not_depend_on_boxes():
    model = model_of()
    with_boxes, _ = model.encode_pixels(images(), *some_boxes())
    without, regions = model.encode_pixels(images(), torch.empty(0, 4), torch.empty(0, dtype=torch.int64))
    torch.testing.assert_close(with_boxes, without)
    assert regions.shape == (0, 24)


def test_a_box_over_one_patch_is_that_patch():
    model = model_of()
    third = torch.tensor([[1 / 3, 2 / 3, 2 / 3, 1.0]])  # row 2, column 1
    _, region = model.encode_pixels(images(), third, torch.tensor([1]))
    torch.testing.assert_close(region[0], model.encode_dense(images(), normalize=False)[1, 2, 1], atol=1e-5, rtol=1e-4)


def test_what_follows_an_eos_is_inert():
    model = model_of()
    one, other = (Tokenizer()([f"a red <|endoftext|> {end}"]) for end in ("mug", "blue dog"))
    torch.testing.assert_close(*(model.encode_tokens(Texts(*tokens, shorts=1))[0] for tokens in (one, other)))


def test_a_text_that_is_too_long_for_its_path_is_refused():
    tokens = Tokenizer()(["mug " * 80], LONG_LENGTH)
    assert model_of().encode_tokens(Texts(*tokens, shorts=0))[1].shape == (1, 24)
    with pytest.raises(ValueError, match="this path takes at most 77 tokens a text, got 82"):
        model_of().encode_tokens(Texts(*tokens, shorts=1))


def test_long_path_uses_both_tables_where_they_act():
    model = model_of()
    tokens = Tokenizer()(["mug " * 30], LONG_LENGTH)
    grads = gradients(model, model.encode_tokens(Texts(*tokens, shorts=0))[1:])
    acting = {
        name: grads[f"text_model.embeddings.position_embedding_{name}.weight"].abs().sum(1).nonzero()[:, 0].tolist()
        for name in ("ori", "res")
    }
    assert acting == {"ori": list(range(20)), "res": list(range(20, 32))}


@pytest.mark.parametrize("residual", ["fp32", "bf16"])
def test_autocast_keeps_embeddings_in_fp32_and_close(residual):
    model = model_of(replace(SMALL, residual=residual))
    exact = embed(model, texts())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = embed(model, texts().packed())
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.dtype == torch.float32
        assert torch.cosine_similarity(ours, theirs).min() > 0.999


def test_a_bf16_residual_stream_changes_nothing_where_products_are_fp32():
    assert_same(
        *(gradients(model, embed(model, texts())) for model in (model_of(), model_of(replace(SMALL, residual="bf16"))))
    )
