"""What `save` writes beside the weights makes transformers tokenise and squash as the model does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import fgclip_fast
from fgclip_fast.inputs.image import normalize
from fgclip_fast.model.fgclip import FGCLIP
from tests.models import MINI

GOLDEN = Path(__file__).parents[1] / "golden"
TEXTS = ["A red  mug's 12", "naïve café ☕ <|endoftext|> x", "", "many words " * 200]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    FGCLIP(MINI).save(folder)
    return folder


def test_auto_tokenizer_gives_the_ids_of_the_model(folder):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for length in (77, 248):
        token, offsets = fgclip_fast.load(folder).tokenizer(TEXTS, length)
        ids = theirs(TEXTS, truncation=True, max_length=length)["input_ids"]
        assert ids == [row.tolist() for row in token.split(offsets.diff().tolist())]


def test_merges_are_strings_which_older_tokenizers_read(folder):
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    assert merges[0] == "i n" and all(isinstance(merge, str) for merge in merges)


def test_auto_processor_squashes_and_crops_nothing(folder):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torchvision")
    noise = np.random.default_rng(0).integers(0, 256, (90, 40, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    theirs = transformers.AutoProcessor.from_pretrained(folder)(images=picture, return_tensors="pt")["pixel_values"]
    ours = normalize(FGCLIP(MINI).transform(picture))[None]
    # Of noise, torch's resize and Pillow's differ by a few of 255 here and there; a crop would differ everywhere.
    assert (theirs - ours).abs().max() <= 10 / 255 / 0.26 and (theirs - ours).abs().mean() <= 0.5 / 255 / 0.26


def test_the_released_code_is_named_as_the_released_folder_names_it(folder):
    where = json.loads((folder / "config.json").read_text())["auto_map"]
    assert where["AutoModelForCausalLM"].endswith("modeling_fgclip.FGCLIPModel")
    assert where["AutoConfig"].endswith("modeling_fgclip.FGCLIPConfig")


def test_a_missing_file_of_merges_costs_the_tokenizer_and_not_the_weights(folder, tmp_path, caplog):
    model = FGCLIP(MINI)
    model.tokenizer.merges = tmp_path / "gone.txt"
    model.save(tmp_path / "saved")
    assert "holds the weights, but no tokenizer" in caplog.text
    assert fgclip_fast.load(tmp_path / "saved").state_dict().keys() == model.state_dict().keys()


def test_the_golden_weights_are_saved_byte_for_byte(tmp_path):
    facts, tensors = json.loads((GOLDEN / "golden.json").read_text()), load_file(GOLDEN / "golden.safetensors")
    given = {name.removeprefix("weights/"): value for name, value in tensors.items() if name.startswith("weights/")}
    table = "text_model.embeddings.token_embedding.weight"
    rows = torch.zeros(facts["config"]["text_config"]["vocab_size"], given[table].shape[1])
    rows[tensors["weights_token_rows"].long()] = given[table]
    given[table] = rows
    (tmp_path / "given").mkdir()
    (tmp_path / "given/config.json").write_text(json.dumps(facts["config"]))
    save_file(given, tmp_path / "given/model.safetensors")
    fgclip_fast.load(tmp_path / "given").save(tmp_path / "saved")
    saved = load_file(tmp_path / "saved/model.safetensors")
    assert saved.keys() == given.keys()
    assert all(saved[name].numpy().tobytes() == value.numpy().tobytes() for name, value in given.items())
