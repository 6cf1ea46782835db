"""CLIP_benchmark loads the model by its own table, and its figures are those of our suite."""

import json
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fgclip_fast.evaluation import retrieval
from fgclip_fast.integrations import clip_benchmark as adapter
from fgclip_fast.model.fgclip import FGCLIP
from tests.models import MINI

TEXTS = ["a red mug", "two dogs on a sofa, looking at a cat", "", "a mug " * 60]


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    FGCLIP(MINI).save(tmp_path / "weights")
    return tmp_path / "weights"


@pytest.mark.parametrize("kind", ["short", "long"])
def test_embeddings_are_the_models_own(weights, kind):
    model, transform, tokenizer = adapter.load(str(weights), pretrained="any", cache_dir=None, device="cpu", kind=kind)
    images = [Image.new("RGB", (30 + n, 20), (40 * n, 9, 200)) for n in range(3)]
    own = model.model
    found = model.encode_image(torch.stack([transform(image) for image in images]))
    torch.testing.assert_close(found, own.encode_image(images, normalize=False))
    ids = tokenizer(TEXTS)
    assert ids.shape == (4, 77 if kind == "short" else 248) and ids.dtype == torch.int64
    with pytest.warns(UserWarning, match="were cut") if kind == "short" else nullcontext():
        torch.testing.assert_close(model.encode_text(ids), own.encode_text(TEXTS, kind=kind, normalize=False))
    assert tokenizer("one").shape[0] == 1 and tokenizer([]).shape[0] == 0
    assert not model.training


def test_retrieval_by_its_loaders_is_that_of_the_suite(weights, tmp_path):
    models = pytest.importorskip("clip_benchmark.models")
    peer = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
    adapter.register()
    adapter.register()
    assert models.MODEL_TYPES.count("fgclip") == 1 and "fgclip-long" in models.MODEL_TYPES
    model, transform, tokenizer = models.load_clip("fgclip", str(weights), "any", cache_dir=None, device="cpu")
    captions, random = [[f"thing {n} {k}" for k in range(1 + n % 3)] for n in range(12)], np.random.default_rng(0)
    for n in range(12):
        pixels = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n:02d}.png")
    pairs = [(transform(tmp_path / f"{n:02d}.png"), own) for n, own in enumerate(captions)]
    batches = DataLoader(pairs, batch_size=5, collate_fn=lambda rows: (torch.stack([r[0] for r in rows]),
                                                                       [r[1] for r in rows]))  # fmt: skip
    theirs = peer.evaluate(model, batches, tokenizer, "cpu", amp=False, recall_k_list=[1, 5])
    rows = [{"image": f"{n:02d}.png", "caption": own} for n, own in enumerate(captions)]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    ours = retrieval.evaluate(model.model, tmp_path / "pairs.json").values
    for k in (1, 5):
        assert ours[f"image_to_text_r@{k}"] == pytest.approx(theirs[f"text_retrieval_recall@{k}"])
        assert ours[f"text_to_image_r@{k}"] == pytest.approx(theirs[f"image_retrieval_recall@{k}"])


def test_its_command_knows_the_types(monkeypatch):
    cli = pytest.importorskip("clip_benchmark.cli")
    adapter.register()
    words = ["clip_benchmark", "eval", "--model_type", "fgclip-long", "--model", "runs/mine", "--pretrained", "mine"]
    monkeypatch.setattr(sys, "argv", words)
    parsed = cli.get_parser_args()[-1]
    assert (parsed.model_type, parsed.model) == ("fgclip-long", ["runs/mine"])


def test_without_the_package_the_line_that_installs_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "clip_benchmark.models", None)
    with pytest.raises(ImportError, match=r"pip install 'fgclip_fast\[clip-benchmark\]'"):
        adapter.register()
