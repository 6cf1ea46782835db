"""CLIPs of open_clip's and OpenAI's layout become ours, with the same features."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import fgclip_fast
from fgclip_fast.config.model import Model
from fgclip_fast.inputs.image import normalize
from fgclip_fast.inputs.tokenizer import Tokenizer
from fgclip_fast.ops.tree import EOS

VISION = {"layers": 2, "width": 128, "patch_size": 16, "image_size": 48}
TEXT = {"width": 64, "heads": 1, "layers": 2}
TEXTS = ["a red mug", "two dogs on a sofa"]


def peer_of(quick_gelu=True, **vision):
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    return open_clip.CLIP(24, {**VISION, **vision}, TEXT, quick_gelu=quick_gelu).eval()


def assert_features_equal(ours, peer):
    image = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    ids = torch.full((2, 77), 0)  # open_clip pads with 0 and pools at the largest id
    for row, text in zip(ids, TEXTS, strict=True):
        token = Tokenizer()([text]).token
        row[: len(token)] = token
    assert (ids == EOS).sum() == 2
    with torch.no_grad():
        expected = peer.encode_image(normalize(image)), peer.encode_text(ids)
    mine = ours.encode_image(image, normalize=False), ours.encode_text(TEXTS, normalize=False)
    for own, theirs in zip(mine, expected, strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-5, rtol=1e-4)


def test_an_open_clip_folder(tmp_path):
    peer = peer_of(quick_gelu=False, head_width=32)
    save_file(peer.state_dict(), tmp_path / "open_clip_model.safetensors")
    config = {"model_cfg": {"embed_dim": 24, "vision_cfg": {**VISION, "head_width": 32}, "text_cfg": TEXT}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    ours = fgclip_fast.load(tmp_path)
    assert (ours.config.activation, ours.config.vision.heads, ours.config.vision.mlp) == ("gelu", 4, 512)
    assert_features_equal(ours, peer)


def test_a_training_checkpoint_of_open_clip(tmp_path):
    peer = peer_of()
    state = {f"module.{name}": value for name, value in peer.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    assert_features_equal(fgclip_fast.load(tmp_path / "epoch_3.pt", like=Model()), peer)


def test_a_file_that_tells_no_activation_is_refused_or_a_guess_is_told(tmp_path, caplog):
    peer = peer_of(quick_gelu=False)
    torch.save({"state_dict": peer.state_dict()}, tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=r"a.pt does not tell its activation, nor how wide its attention heads are; put"
    ):
        fgclip_fast.load(tmp_path / "a.pt")
    assert_features_equal(fgclip_fast.load(tmp_path / "a.pt", like=Model(activation="gelu")), peer)
    assert "gelu is taken from the config, and heads of 64" in caplog.text


def test_a_config_beside_a_file_tells_it(tmp_path):
    peer = peer_of(quick_gelu=False, head_width=32)
    torch.save(peer.state_dict(), tmp_path / "a.pt")
    config = {"model_cfg": {"vision_cfg": {**VISION, "head_width": 32}, "text_cfg": TEXT}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert_features_equal(fgclip_fast.load(tmp_path / "a.pt"), peer)


@pytest.mark.parametrize(
    ("part", "field", "message"),
    [
        ("text_cfg", {"pool_type": "last"}, r"text_cfg.pool_type must be 'argmax', got 'last'"),
        ("text_cfg", {"no_causal_mask": True}, r"text_cfg.no_causal_mask must be False, got True"),
        ("text_cfg", {"hf_model_name": "roberta"}, r"text_cfg.hf_model_name must be left out, got 'roberta'"),
        ("vision_cfg", {"pool_type": "avg"}, r"vision_cfg.pool_type must be 'tok', got 'avg'"),
        ("vision_cfg", {"act_kwargs": {"approximate": "tanh"}}, r"vision_cfg.act_kwargs must be left out"),
        ("vision_cfg", {"norm_kwargs": {"eps": 1e-3}}, r"norm_kwargs.eps must be the same in both towers"),
        ("vision_cfg", {"layers": [3, 4, 6, 3]}, r"vision_cfg.layers must be one number, got \[3, 4, 6, 3\]: a ResNet"),
    ],
    ids=str,
)
def test_a_field_that_changes_the_arithmetic_is_refused(tmp_path, part, field, message):
    save_file(peer_of().state_dict(), tmp_path / "open_clip_model.safetensors")
    config = {"vision_cfg": dict(VISION), "text_cfg": dict(TEXT), "quick_gelu": True}
    config[part] |= field
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(ValueError, match=message):
        fgclip_fast.load(tmp_path)


def test_a_checkpoint_with_numpy_scalars(tmp_path):
    peer = peer_of()
    group = {"lr": np.float64(1e-3), "step": np.int64(3)}
    torch.save({"state_dict": peer.state_dict(), "optimizer": [group]}, tmp_path / "a.pt")
    assert_features_equal(fgclip_fast.load(tmp_path / "a.pt", like=Model()), peer)


def test_a_prefix_of_any_wrapper_is_stripped(tmp_path):
    peer = peer_of()
    state = {f"model._orig_mod.{name}": value for name, value in peer.state_dict().items()}
    torch.save({"state_dict": {**state, "loss.weight": torch.ones(1)}}, tmp_path / "a.pt")
    assert_features_equal(fgclip_fast.load(tmp_path / "a.pt", like=Model()), peer)


def test_a_long_clip_brings_both_long_tables(tmp_path):
    state = peer_of().state_dict()
    kept, stretched = torch.randn(248, 64), torch.randn(248, 64)
    long_clip = {**state, "positional_embedding": kept, "positional_embedding_res": stretched}
    torch.save(long_clip, tmp_path / "longclip.pt")
    tables = fgclip_fast.load(tmp_path / "longclip.pt", like=Model()).text_model.embeddings
    expected = torch.cat([kept[:20], stretched[20:]])
    assert tables.long_positions().equal(expected) and tables.position_embedding.weight.equal(expected[:77])


def test_a_resnet_is_refused(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    peer = open_clip.CLIP(24, {"image_size": 64, "layers": (1, 1, 1, 1), "width": 64}, TEXT)
    torch.save(peer.state_dict(), tmp_path / "rn.pt")
    with pytest.raises(ValueError, match=r"rn.pt lacks visual.transformer.* it is a ResNet"):
        fgclip_fast.load(tmp_path / "rn.pt", like=Model())


def test_a_projection_with_a_bias_is_refused(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    torch.save(open_clip.CLIP(24, VISION, {**TEXT, "proj_bias": True}).state_dict(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a.pt lacks text_projection: it is another architecture"):
        fgclip_fast.load(tmp_path / "a.pt", like=Model())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "metaclip_2"}, "model_type must be clip, got metaclip_2: another tokenizer or architecture"),
        ({"model_type": "fgclip2"}, "is an FG-CLIP 2, which this version does not read"),
        ({"vision_config": {"num_hidden_layers": 10**9}}, r"num_hidden_layers must be from 1 to 1000, got 1000000000"),
        ({"text_config": {"hidden_size": -4}}, r"hidden_size must be from 1 to 65536, got -4"),
        ({"vision_config": {"image_size": [224, 336]}}, r"image_size must be an integer, got \[224, 336\]"),
    ],
    ids=str,
)
def test_a_config_of_another_architecture_is_refused(tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {}, "text_config": {}} | change))
    with pytest.raises(ValueError, match=message):
        fgclip_fast.load(tmp_path)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_a_torchscript_file_as_openais(tmp_path):
    peer = peer_of()
    save_file(peer.state_dict(), tmp_path / "a.safetensors")

    class Weights(torch.nn.Module):
        """A module of the same parameters and of the numbers that OpenAI's files hold beside them."""

        def __init__(self):
            super().__init__()
            self.visual, self.transformer = peer.visual, peer.transformer
            self.token_embedding, self.ln_final = peer.token_embedding, peer.ln_final
            self.positional_embedding, self.text_projection = peer.positional_embedding, peer.text_projection
            self.logit_scale = peer.logit_scale
            self.register_buffer("input_resolution", torch.tensor(48))

        def forward(self, image):
            return self.visual.conv1(image)

    torch.jit.trace(Weights(), torch.zeros(1, 3, 48, 48)).save(tmp_path / "ViT.pt")
    with pytest.raises(ValueError, match=r"ViT.pt holds no weights .*trust_file=True \(--trust-file\)"):
        fgclip_fast.load(tmp_path / "ViT.pt")
    assert_features_equal(fgclip_fast.load(tmp_path / "ViT.pt", trust_file=True), peer)


class Runs:
    """An object whose pickle runs a function when it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return self.mark.touch, ()


def test_a_pickle_that_runs_something_is_read_only_if_it_is_trusted(tmp_path):
    peer, mark = peer_of(), tmp_path / "ran"
    torch.save({"state_dict": peer.state_dict(), "extra": Runs(mark)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"trust_file=True"):
        fgclip_fast.load(tmp_path / "a.pt", like=Model())
    assert not mark.exists()
    assert_features_equal(fgclip_fast.load(tmp_path / "a.pt", like=Model(), trust_file=True), peer)


def test_a_file_that_is_not_a_clip_is_refused(tmp_path):
    save_file({"head.weight": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors is not an OpenAI or open_clip checkpoint; its tensors are"):
        fgclip_fast.load(tmp_path / "a.safetensors", like=Model())


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"], ids=["empty", "text", "cut archive"])
def test_a_file_of_no_weights_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"load: .*{name} holds no weights that can be read: [A-Z]"):
        fgclip_fast.load(tmp_path / name)


def test_a_tensor_of_another_architecture_is_named(tmp_path):
    save_file({**peer_of().state_dict(), "logit_bias": torch.zeros(())}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="has 1 tensors that are not FG-CLIP's, the first: logit_bias"):
        fgclip_fast.load(tmp_path / "a.safetensors", like=Model())
