"""Weights come in from three layouts, go out in the released one, and what is wrong with a folder is said."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import fgclip_fast
from fgclip_fast.config.model import Model, Text, Vision
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.model.network import Network
from fgclip_fast.model.positions import stretch

CONFIG = Model(
    vision=Vision(image_size=48, patch_size=16, width=48, layers=1, heads=4, mlp=96),
    text=Text(width=32, layers=1, heads=2, mlp=64, vocabulary=500),
    projection=24,
)
TABLES = "text_model.embeddings.position_embedding"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return FGCLIP(CONFIG)


@pytest.fixture
def folder(model, tmp_path):
    model.save(tmp_path / "fgclip")
    return tmp_path / "fgclip"


def rewrite(folder, change):
    """Saves what ``change`` makes of the folder's tensors."""
    state = change(load_file(folder / "model.safetensors"))
    save_file(state, folder / "model.safetensors")


def configure(folder, **changes):
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stored, **changes}))


def clip_of(state):
    """What a CLIP has of an FG-CLIP's tensors, and the buffer that old ones store."""
    own = ("_res.weight", "_ori.weight", "filip_projection.weight", "finegraind", "hardneg")
    kept = {name: value for name, value in state.items() if not name.endswith(own)}
    return {**kept, "text_model.embeddings.position_ids": torch.arange(77)[None], "logit_scale": torch.tensor(4.6052)}


def assert_equal(loaded, model):
    state = model.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_what_was_saved_is_loaded(model, folder):
    loaded = fgclip_fast.load(folder)
    assert_equal(loaded, model)
    assert loaded.config == CONFIG
    assert all(p.requires_grad and p.dtype == torch.float32 for p in loaded.parameters())
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ]


def test_nothing_is_filled_that_the_file_fills(model, folder, monkeypatch):
    """To fill tensors without values, torch imports its compiler."""

    def refuse(*_, **__):
        raise AssertionError("a tensor is filled")

    monkeypatch.setattr(torch._refs, "normal_", refuse)
    monkeypatch.setattr(Network, "reset_parameters", refuse)
    assert_equal(fgclip_fast.load(folder), model)


def test_a_loaded_model_does_not_need_its_file(model, folder):
    loaded = fgclip_fast.load(folder)
    with open(folder / "model.safetensors", "r+b") as file:
        file.write(b"\0" * 10_000)
    assert_equal(loaded, model)


def test_saving_over_a_model_replaces_it(model, folder):
    with torch.no_grad():
        model.logit_scale.fill_(1.5)
    model.save(folder)
    assert fgclip_fast.load(folder).logit_scale == 1.5


def test_names_and_number_of_tensors_are_the_released_ones():
    with torch.device("meta"):
        state = FGCLIP(Model()).state_dict()
    assert len(state) == 403
    assert sum(value.numel() for value in state.values()) == 150_136_835
    assert state["vision_model.pre_layrnorm.weight"].shape == (768,)


def test_bf16_weights_become_fp32(model, folder):
    rewrite(folder, lambda state: {name: value.bfloat16() for name, value in state.items()})
    assert_equal(fgclip_fast.load(folder), model.bfloat16().float())


def test_weights_in_several_files_are_joined(model, folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = {"a.safetensors": [*state][::2], "b.safetensors": [*state][1::2]}
    for file, names in halves.items():
        save_file({name: state[name] for name in names}, folder / file)
    where = {name: file for file, names in halves.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert_equal(fgclip_fast.load(folder), model)


def test_a_clip_is_stretched_and_copied(model, folder):
    rewrite(folder, clip_of)
    loaded = fgclip_fast.load(folder).state_dict()
    table = stretch(model.state_dict()[f"{TABLES}.weight"])
    assert torch.equal(loaded[f"{TABLES}_ori.weight"], table) and torch.equal(loaded[f"{TABLES}_res.weight"], table)
    assert loaded[f"{TABLES}_ori.weight"].data_ptr() != loaded[f"{TABLES}_res.weight"].data_ptr()
    assert torch.equal(loaded["text_filip_projection.weight"], model.text_projection.weight)
    scales = [loaded[name].item() for name in ("logit_scale", "logit_scale_finegraind", "logit_scale_hardneg")]
    assert scales == pytest.approx([4.6052] * 3)


def test_a_clip_that_transformers_saved_is_loaded(tmp_path):
    pytest.importorskip("transformers")
    from transformers import CLIPConfig, CLIPModel

    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**text, "image_size": 48, "patch_size": 16}
    peer = CLIPModel(CLIPConfig(text_config={**text, "vocab_size": 500}, vision_config=vision, projection_dim=24))
    peer.save_pretrained(tmp_path)
    loaded = fgclip_fast.load(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in peer.state_dict().items())


def test_what_the_config_leaves_out_has_hugging_faces_defaults(tmp_path):
    from fgclip_fast.model import config_json

    (tmp_path / "config.json").write_text('{"vision_config": {}, "text_config": {"vocab_size": 7}}')
    read = config_json.read(tmp_path / "config.json")
    assert read == Model(vision=Vision(patch_size=32), text=Text(vocabulary=7))


def test_how_to_run_comes_from_the_caller_and_the_geometry_from_the_file(folder):
    like = replace(Model(), packing="prefix-tree", recompute="blocks")
    assert fgclip_fast.load(folder, like).config == replace(CONFIG, packing="prefix-tree", recompute="blocks")


def test_of_a_run_the_newest_complete_checkpoint_is_loaded(model, tmp_path):
    for step in (9, 10, 11):
        model.logit_scale.data.fill_(step)
        model.save(tmp_path / f"checkpoints/step-{step:08d}/model")
    (tmp_path / "checkpoints/step-00000011/model/model.safetensors").unlink()
    (tmp_path / "config.yaml").write_text("")
    assert fgclip_fast.load(tmp_path).logit_scale == 10
    assert fgclip_fast.load(tmp_path / "checkpoints" / "step-00000009").logit_scale == 9


def test_merges_beside_the_weights_rule_the_tokenizer(folder):
    (folder / "merges.txt").write_text("#version: 0.2\n")
    assert fgclip_fast.load(folder).tokenizer.merges == folder / "merges.txt"


def test_a_table_that_was_not_stretched_is_named(folder):
    name = f"{TABLES}_res.weight"
    rewrite(folder, lambda state: {**state, name: state[name][:77].clone()})
    with pytest.raises(ValueError, match=r"position_embedding_res\.weight is \[77, 32\], must be \[248, 32\]"):
        fgclip_fast.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if "fc1" not in k}, r"lacks 4 of \d+ tensors, the first: .*fc1\.weight"),
        (
            lambda s: {**s, "head.weight": torch.ones(1)},
            r"has 1 tensors that are not FG-CLIP's, the first: head\.weight",
        ),
    ],
)
def test_wrong_tensors_are_counted_and_the_first_is_named(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message):
        fgclip_fast.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_config": None}, "must hold vision_config and text_config"),
        ({"text_config": {"max_position_embeddings": 248}}, "max_position_embeddings must be 77, got 248"),
        (
            {"text_config": {"hidden_act": "gelu"}},
            "hidden_act must be the same in both towers, got quick_gelu and gelu",
        ),
    ],
)
def test_a_config_that_is_no_clips_is_refused(folder, changes, message):
    configure(folder, **changes)
    with pytest.raises(ValueError, match=message):
        fgclip_fast.load(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "..", "sub/model.safetensors"])
def test_an_index_that_leaves_its_folder_is_refused(folder, name):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"logit_scale": name}}))
    with pytest.raises(ValueError, match=r"must name files of its own folder, got"):
        fgclip_fast.load(folder)


def test_one_variant_is_loaded_and_of_several_none_is_guessed(model, folder):
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    assert_equal(fgclip_fast.load(folder), model)
    (folder / "model.bf16.safetensors").write_bytes((folder / "model.fp16.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"no model.safetensors, but model.bf16.safetensors, model.fp16.safetensors"):
        fgclip_fast.load(folder)


@pytest.mark.parametrize(("dtype", "error"), [("bfloat16", 0.02), (torch.float16, 0.003)], ids=str)
def test_products_run_in_the_wanted_dtype(folder, dtype, error):
    full, half = fgclip_fast.load(folder), fgclip_fast.load(folder, dtype=dtype, device="cpu")
    products = {name for name, value in half.state_dict().items() if value.dtype != torch.float32}
    assert products and all(".layers." in name and "layer_norm" not in name for name in products)
    pixels = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    boxes = [[(0.1, 0.2, 0.6, 0.9)], [(0, 0, 1, 1)]]
    for encode in (
        lambda model: model.encode_image(pixels),
        lambda model: model.encode_dense(pixels),
        lambda model: model.encode_regions(pixels, boxes, "fraction"),
    ):
        exact, ours = encode(full), encode(half)
        assert ours.dtype == torch.float32
        assert 0 < (ours - exact).abs().max() < error


@pytest.mark.parametrize(("has", "warned"), [({}, 1), ({"avx512_bf16": True}, 0), ({"architecture": "aarch64"}, 0)])
def test_bf16_on_a_cpu_without_instructions_for_it_is_warned_of(folder, monkeypatch, recwarn, has, warned):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    fgclip_fast.load(folder, device="cpu")
    fgclip_fast.load(folder, device="cpu", dtype="bfloat16")
    assert [str(one.message) for one in recwarn if "bfloat16" in str(one.message)] == [
        "load: this CPU has no instructions for bf16, so dtype bfloat16 is slower here than float32"
    ] * warned


def test_a_tensor_that_differs_after_loading_is_named(folder, monkeypatch):
    kept = FGCLIP.load_state_dict

    def halve(model, state, **options):
        kept(model, state | {"logit_scale": state["logit_scale"] / 2}, **options)

    monkeypatch.setattr(FGCLIP, "load_state_dict", halve)
    with pytest.raises(ValueError, match="load: logit_scale of the model differs from that of"):
        fgclip_fast.load(folder)


def test_an_unknown_dtype_is_named(folder):
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16, got 'int8'"):
        fgclip_fast.load(folder, dtype="int8")


def test_a_hub_name_is_found_in_the_offline_cache(model, folder, tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    cached = tmp_path / "cache/models--org--tiny"
    snapshot, blobs = cached / "snapshots" / ("a" * 40), cached / "blobs"
    for made in (snapshot, blobs, cached / "refs"):
        made.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(blobs / str(number))
    (cached / "refs/main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert_equal(fgclip_fast.load("org/tiny"), model)
    with pytest.raises(
        FileNotFoundError,
        match="load: org/tiny at revision v2: there is no folder org here, and it cannot be fetched as a name",
    ):
        fgclip_fast.load("org/tiny", revision="v2")
    with pytest.raises(ValueError, match="revision is for a name on a hub, got 'v2'"):
        fgclip_fast.load(folder, revision="v2")


def test_broken_files_are_named(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        fgclip_fast.load(folder)
    FGCLIP(CONFIG).save(folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors is cut short or not a safetensors file"):
        fgclip_fast.load(folder)


def test_a_missing_thing_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        fgclip_fast.load(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"fglcip does not exist; did you mean .*fgclip\?"):
        fgclip_fast.load(tmp_path / "fglcip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds neither config\.json nor a run's"):
        fgclip_fast.load(tmp_path / "empty")
    (tmp_path / "empty" / "config.yaml").write_text("")
    with pytest.raises(FileNotFoundError, match=r"the run .*empty has no checkpoint yet"):
        fgclip_fast.load(tmp_path / "empty")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors; it has pytorch_model\.bin"):
        fgclip_fast.load(folder)
