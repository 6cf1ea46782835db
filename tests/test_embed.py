"""``embed``: texts ranked, heat maps drawn, folders embedded, and each mistake refused in one line."""

import builtins
import re

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip_fast import embed
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


def test_parquet_needs_pyarrow_and_says_so(run, photos, tmp_path, monkeypatch):
    original = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SystemExit, match=r"needs pyarrow: pip install pyarrow, or write .npz"):
        embed.main([run, str(photos), "--output", str(tmp_path / "features.parquet")])


def test_parquet_holds_a_row_for_each_image(run, photos, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    out = tmp_path / "features.parquet"
    embed.main([run, str(photos), "--output", str(out)])
    assert parquet.read_table(out).num_rows == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to do: give --text"),
        (["--output", "x.csv"], r"--output must end in .npz or .parquet, got x.csv"),
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
