"""ONNX graphs compute in onnxruntime what the model computes, at any number of images, boxes, texts and tokens."""

import json
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fgclip_fast
from fgclip_fast.export import __main__ as export, onnx_graphs
from fgclip_fast.export.onnx_model import OnnxModel
from fgclip_fast.inputs.image import normalize
from fgclip_fast.ops.tree import EOS, SHORT_LENGTH

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
TEXTS = ["a red mug", "two dogs on a sofa", "", "a cat"]


def pixels(count):
    generator = torch.Generator().manual_seed(count)
    return normalize(torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator))


def test_a_traced_pass_takes_any_number_of_texts_and_tokens(folder):
    model = fgclip_fast.load(folder).eval()
    proto = onnx_graphs.trace(onnx_graphs.text_graph(model, SHORT_LENGTH))
    assert not any(node.metadata_props for node in proto.graph.node)
    session = ort.InferenceSession(proto.SerializeToString())
    assert [(one.name, one.shape) for one in session.get_inputs()] == [("input_ids", ["texts", "tokens"])]
    expected = model.encode_text(TEXTS, normalize=False)
    token, offsets = model.tokenizer(TEXTS)
    rows = token.split(offsets.diff().tolist())
    for length, padding in ((77, 0), (77, EOS), (7, 0)):  # open_clip's padding, transformers', and none for the longest
        ids = np.full((4, length), padding, dtype=np.int64)
        for row, own in zip(ids, rows, strict=True):
            row[: len(own)] = own
        found = torch.from_numpy(session.run(None, {"input_ids": ids})[0])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    # A text that was cut without its end is read at its last token, as one that was cut before it.
    cut = np.array([[*range(400, 477)]])
    found = session.run(None, {"input_ids": cut})[0]
    cut[0, -1] = EOS
    assert np.array_equal(found, session.run(None, {"input_ids": cut})[0])


@pytest.mark.slow
def test_every_graph_equals_the_call_of_the_model(folder, exported):
    out = exported("onnx")
    model, described = fgclip_fast.load(folder).eval(), json.loads((out / "onnx.json").read_text())
    assert described["logit_scale"] == pytest.approx(model.logit_scale.item())
    assert sorted(described["graphs"]) == ["dense", "image", "regions", "text-long", "text-short"]
    image, index = pixels(3), torch.tensor([2, 0, 0, 2])
    boxes = torch.tensor([[0, 0, 1, 1], [0.1, 0.2, 0.5, 0.4], [-0.3, 0.2, 1.2, 0.9], [0.6, 0.1, 0.62, 0.13]])
    run = OnnxModel(out).run
    (dense,) = run("dense", pixel_values=image)
    torch.testing.assert_close(dense, model.encode_dense(image, normalize=False), atol=1e-5, rtol=1e-4)
    regions, whole = run("regions", pixel_values=image, boxes=boxes, image_index=index)
    with torch.no_grad():
        expected = model.encode_pixels(image, boxes, index)
    torch.testing.assert_close((whole, regions), expected, atol=1e-5, rtol=1e-4)
    assert run("regions", pixel_values=image, boxes=boxes[:0], image_index=index[:0])[0].shape == (0, 8)
    long = torch.full((1, 248), 400)
    assert run("text-long", input_ids=long)[0].shape == (1, 8)


@pytest.mark.slow
def test_equal_weights_stand_once(exported):
    out = exported("onnx")
    sizes = {file.name: file.stat().st_size for file in out.iterdir()}
    table = 49408 * 16 * 4  # of tokens, which both text paths read
    assert table < sizes["weights.bin"] < 1.1 * table
    assert all(size < 400_000 for name, size in sizes.items() if name.endswith(".onnx"))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "error"), [("float16", 2e-3), ("int8", 0.1)])
def test_what_a_lower_precision_costs_is_printed(folder, tmp_path, shards, precision, error, capsys, caplog):
    out = tmp_path / "out"
    records = ["--records", str(shards / "val-00000.tar"), "--limit", "8"]
    export.main([str(folder), "--format", "onnx", "--precision", precision, "--output", str(out), *records])
    printed = capsys.readouterr().out
    assert "long_image_to_text_r@1" in printed and "hard_negative_top1" in printed and "difference" in printed
    image = pixels(2)
    ours, full = OnnxModel(out).encode_image(image), fgclip_fast.load(folder).encode_image(image)
    assert 0 < (ours - full).abs().max() < error
    assert "not measured" not in caplog.text


@pytest.mark.slow
def test_without_records_it_is_said_that_nothing_was_measured(folder, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    words = ["--format", "onnx", "--precision", "float16", "--output", str(tmp_path / "out")]
    export.main([str(folder), *words])
    assert "what float16 costs was not measured; name validation shards by --records" in caplog.text


@pytest.mark.slow
def test_immich_reads_its_layout(folder, exported):
    from tokenizers import Tokenizer

    out = exported("immich")
    assert json.loads((out / "config.json").read_text())["text_cfg"]["context_length"] == 77
    settings = json.loads((out / "visual/preprocess_cfg.json").read_text())
    assert (settings["size"], settings["interpolation"], settings["resize_mode"]) == ([32, 32], "bicubic", "squash")
    tokenizer = Tokenizer.from_file(str(out / "textual/tokenizer.json"))
    tokenizer.enable_padding(length=77, pad_token="<|endoftext|>", pad_id=EOS)
    ids = np.array([tokenizer.encode("a red mug").ids], dtype=np.int32)
    found = ort.InferenceSession(out / "textual/model.onnx").run(["embedding"], {"text": ids})[0]
    model = fgclip_fast.load(folder)
    torch.testing.assert_close(torch.from_numpy(found), model.encode_text(["a red mug"]), atol=1e-5, rtol=1e-4)
    image = pixels(1)
    found = ort.InferenceSession(out / "visual/model.onnx").run(["embedding"], {"image": image.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), F.normalize(model.encode_image(image)), atol=1e-5, rtol=1e-4)
