"""``embed``: texts ranked, heat maps drawn, folders embedded, and each mistake refused in one line."""

import os
import re
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip_fast import embed, embed_many
from fgclip_fast.config import Data
from fgclip_fast.evaluation.heatmap import heatmap, highlight
from fgclip_fast.model import pretrained
from tests import runs
from tests.refusals import refusal


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on the embedded set."""
    return str(runs.run(tmp_path_factory.mktemp("runs") / "run", data=Data()))


@pytest.fixture
def photos(tmp_path):
    """A folder of three images, one of them in a folder of its own, one broken image and one text file."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b.png", "more/c.JPG")):
        Image.new("RGB", (40 + number, 30), (80 * number, 40, 90)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not an image")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_texts_are_ranked_for_a_box(run, photos, capsys):
    embed.main([run, str(photos / "a.jpg"), "--text", "a red mug", "a [b]blue[/b] mug", "--box", "2", "3", "20", "25"])
    printed = capsys.readouterr().out
    assert "a red mug" in printed and "a [b]blue[/b] mug" in printed
    model = pretrained.load(run)
    best, share = model.rank(str(photos / "a.jpg"), ["a red mug", "a [b]blue[/b] mug"], box=(2, 3, 20, 25))[0]
    assert (
        printed.index(best) < printed.index({"a red mug": "a [b]", "a [b]blue[/b] mug": "a red"}[best])
        and f"{share:.1%}" in printed
    )


def test_heatmap_has_one_row_a_text(run, photos, tmp_path):
    out = tmp_path / "out.png"
    embed.main([run, str(photos / "a.jpg"), "--text", "a mug", "--heatmap", str(out)])
    one = Image.open(out).size
    embed.main([run, str(photos / "a.jpg"), "--text", "a mug", "a cat", "--heatmap", str(out)])
    two = Image.open(out).size
    assert two[0] == one[0] and two[1] - 12 == 2 * (one[1] - 12)


def test_patches_that_fit_stay_bright():
    light = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    shown = np.asarray(highlight(Image.new("RGB", (40, 40), "white"), light))
    assert shown[2, 2].min() > 240 and shown[37, 37].max() < 90


def test_a_long_text_is_wrapped():
    image = Image.new("RGB", (20, 40))
    similarity = torch.rand(1, 2, 2)
    assert heatmap(image, similarity, ["word " * 60]).height > heatmap(image, similarity, ["word"]).height


def test_the_images_of_a_folder_become_one_file(run, photos, tmp_path, caplog):
    out = tmp_path / "features.npz"
    with caplog.at_level("WARNING"):
        embed.main([run, str(photos), "--text", "a mug", "--output", str(out), "--batch-size", "2"])
    saved = np.load(out)
    assert [name.rsplit("photos/")[1] for name in saved["path"]] == ["a.jpg", "b.png", "more/c.JPG"]
    assert saved["image"].shape == (3, 16) and saved["similarity"].shape == (3, 1)
    expected = pretrained.load(run).encode_image(list(saved["path"])).numpy()
    np.testing.assert_allclose(saved["image"], expected, atol=1e-5)
    assert "broken.jpg as an image" in caplog.text


@pytest.mark.parametrize("output", ["features.parquet", "features"])
def test_parquet_needs_pyarrow_and_says_so(run, photos, tmp_path, monkeypatch, output):
    monkeypatch.setattr(embed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"needs pyarrow: pip install pyarrow, or write .npz"):
        embed.main([run, str(photos), "--output", str(tmp_path / output)])


def test_parquet_holds_a_row_for_each_image(run, photos, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    out = tmp_path / "features.parquet"
    embed.main([run, str(photos), "--output", str(out)])
    assert parquet.read_table(out).num_rows == 3


@pytest.fixture
def many(tmp_path):
    """A folder of nine images, two of them broken."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(9):
        Image.new("RGB", (30, 20 + number), (25 * number, 40, 90)).save(folder / f"{number}.png")
    for number in (3, 8):
        (folder / f"{number}.png").write_bytes(b"no image")
    return folder


def words_of(run, many, output, *more):
    sizes = ["--batch-size", "2", "--part-size", "3"]
    return [run, str(many), "--text", "a mug", "--output", str(output), *sizes, "--workers", "1", *more]


def parts_of(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.glob("part-*"))}


def test_parts_are_the_rows_of_one_file(run, many, tmp_path, capsys, caplog):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    caplog.set_level("INFO", logger="fgclip_fast")
    embed.main(words_of(run, many, tmp_path / "parts", "--workers", "2"))
    assert "9/9 " in (shown := capsys.readouterr().out) and "images/s" in shown
    assert "7 images, 2 could not be read" in caplog.text and "3.png as an image" in caplog.text
    embed.main(words_of(run, many, tmp_path / "one.parquet"))
    parts, one = (parquet.read_table(tmp_path / name) for name in ("parts", "one.parquet"))
    assert parts.column_names == ["path", "image", "similarity: a mug"] and len(parts_of(tmp_path / "parts")) == 3
    assert parts["path"].to_pylist() == one["path"].to_pylist()
    ours, theirs = (np.array(x["image"].to_pylist(), np.float32) for x in (parts, one))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    expected = pretrained.load(run).encode_image(parts["path"].to_pylist()).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("batches", [0, 1, 3, 5])
def test_what_was_stopped_goes_on_to_the_same_bytes(run, many, tmp_path, monkeypatch, batches, caplog, capsys):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    embed.main(words_of(run, many, tmp_path / "whole"))
    encode, left = embed_many.FGCLIP.encode_image, iter(range(batches))

    def stops(model, images):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGTERM)
        return encode(model, images)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(embed_many.FGCLIP, "encode_image", stops)
        embed.main(words_of(run, many, tmp_path / "stopped"))
    assert ended.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "embed: interrupted; the same command goes on from here\n"
    before = parts_of(tmp_path / "stopped")
    assert len(before) == {0: 0, 1: 0, 3: 1, 5: 2}[batches]
    (tmp_path / "stopped" / ".part-000001.parquet.7.partial").write_bytes(b"half a part")
    caplog.set_level("INFO", logger="fgclip_fast")
    embed.main(words_of(run, many, tmp_path / "stopped"))
    assert parts_of(tmp_path / "stopped") == parts_of(tmp_path / "whole")
    assert sorted(x.name for x in (tmp_path / "stopped").iterdir())[0] == embed_many.STATE
    assert ("parts and goes on" in caplog.text) == bool(before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda many: ["--batch-size", "4"], "begun with another batch_size: 2 there, 4 now"),
        (lambda many: ["--text", "a cat"], r"begun with another text: \['a mug'\] there, \['a cat'\] now"),
        (lambda many: ["--precision", "bf16"], "begun with another precision: 'torch.float32' there"),
        (lambda many: (many / "0.png").unlink() or [], "begun with another images: '9 files, .* there, '8 files"),
    ],
    ids=["batch size", "text", "precision", "images"],
)
def test_parts_of_other_settings_are_not_mixed(run, many, tmp_path, change, message):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    embed.main(words_of(run, many, tmp_path / "out"))
    with pytest.raises(SystemExit, match=message):
        embed.main(words_of(run, many, tmp_path / "out", *change(many)))


def test_a_folder_of_something_else_is_left_alone(run, many):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    with pytest.raises(SystemExit, match="output must be a new or empty folder, or one that embed began"):
        embed.main(words_of(run, many, many))


def test_bf16_is_near_fp32_and_not_it(run, many, tmp_path):
    for precision in ("fp32", "bf16"):
        embed.main(words_of(run, many, tmp_path / f"{precision}.npz", "--precision", precision))
    ours, exact = (np.load(tmp_path / f"{name}.npz")["image"] for name in ("bf16", "fp32"))
    assert 1e-6 < np.abs(ours - exact).max() < 0.05


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to do: give --text"),
        (["--output", "x.csv"], r"--output must end in .npz or .parquet, or be a folder, got x.csv"),
        (["--output", "x.npz", "--box", "0", "0", "1", "1"], "are for one image, without --output"),
        (["--output", "nowhere/x.npz"], "--output must lie in an existing folder, got nowhere/x.npz"),
        (["--text", "a mug", "--heatmap", "."], r"--heatmap must be a file, got the folder \."),
        (["--output", "x.npz", "--batch-size", "0"], "batch_size must be > 0, got 0"),
        (["--output", "x.npz", "--device", "foo"], "device must be auto, cpu, cuda or cuda:0, got foo"),
        (["--text", "a mug", "--box", "0", "0", "nan", "1"], "box must be finite"),
    ],
    ids=["nothing", "csv", "box", "no folder", "folder", "batch size", "device", "nan"],
)
def test_an_argument_that_cannot_be_is_named(run, photos, words, message, capsys):
    assert re.search(message, refusal(embed.main, [run, str(photos / "a.jpg"), *words], capsys))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.jpg", "does not exist"),
        ("broken.jpg", "cannot read .* as an image"),
        ("", "texts are ranked for one image"),
    ],
)
def test_anything_but_one_image_is_named(run, photos, name, message):
    with pytest.raises(SystemExit, match=message):
        embed.main([run, str(photos / name), "--text", "a mug"])


def test_a_box_outside_is_refused(run, photos):
    with pytest.raises(SystemExit, match=r"error: .*box"):
        embed.main([run, str(photos / "a.jpg"), "--text", "a mug", "--box", "90", "90", "99", "99"])


def test_a_model_of_rendered_scenes_says_so_of_a_photograph(run, tmp_path):
    assert "only on rendered scenes" in embed.warning(run, Image.new("RGB", (640, 480)))
    assert embed.warning(run, Image.new("RGB", (96, 96))) is None
    own = runs.run(tmp_path / "own", data=Data(train="mine.tar", val=""))
    assert embed.warning(str(own), Image.new("RGB", (640, 480))) is None
