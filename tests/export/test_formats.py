"""Each export is loaded by the package that it is for, and computes there what the model computes."""

from dataclasses import replace

import pytest
import torch

import fgclip_fast
from fgclip_fast.export import __main__ as export
from fgclip_fast.export import probe
from fgclip_fast.model.fgclip import FGCLIP
from tests.models import MINI


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    model = FGCLIP(MINI)
    with torch.no_grad():
        for parameter in model.parameters():  # biases too, which start at zero
            parameter.add_(0.02 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "consumer"),
    [("fg-clip", "fgclip_fast"), ("hf", "transformers"), ("open-clip", "open_clip"), ("vision-tower", "transformers")],
)
def test_the_consumer_computes_the_same(folder, tmp_path, name, consumer, caplog):
    pytest.importorskip(consumer)
    caplog.set_level("INFO", logger="fgclip_fast")
    export.main([str(folder), "--format", name, "--output", str(tmp_path / "out")])
    assert "loaded by its consumer" in caplog.text
    if name == "fg-clip":
        back, model = fgclip_fast.load(tmp_path / "out"), fgclip_fast.load(folder)
        assert all(back.state_dict()[name].equal(value) for name, value in model.state_dict().items())
    elif name != "vision-tower":
        back, model = fgclip_fast.load(tmp_path / "out"), fgclip_fast.load(folder)
        own = ("_res.weight", "_ori.weight", "filip_projection.weight", "finegraind", "hardneg")
        kept = {name: value for name, value in model.state_dict().items() if not name.endswith(own)}
        assert all(back.state_dict()[name].equal(value) for name, value in kept.items())


def test_a_consumer_that_computes_something_else_is_an_error():
    with pytest.raises(ValueError, match=r"export: open_clip computes another text: it differs by 1\.0e\+00"):
        probe.compare("open_clip", {"text": (torch.zeros(2), torch.ones(2))})


def test_a_folder_that_holds_something_is_left_alone(folder):
    with pytest.raises(SystemExit, match="output must be a new or empty folder"):
        export.main([str(folder), "--format", "hf", "--output", str(folder)])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_between_two_models_are_written(folder, tmp_path, share):
    torch.manual_seed(1)
    FGCLIP(MINI).save(tmp_path / "init")
    words = ["--format", "fg-clip", "--output", str(tmp_path / "out"), "--interpolate", str(tmp_path / "init")]
    export.main([str(folder), *words, str(share)])
    ours, begun, between = (fgclip_fast.load(x).state_dict() for x in (folder, tmp_path / "init", tmp_path / "out"))
    for name, value in between.items():
        torch.testing.assert_close(value, (1 - share) * begun[name] + share * ours[name])


def test_weights_of_another_geometry_are_not_mixed(folder, tmp_path):
    FGCLIP(replace(MINI, projection=16)).save(tmp_path / "init")
    words = ["--format", "fg-clip", "--output", str(tmp_path / "out"), "--interpolate", str(tmp_path / "init")]
    with pytest.raises(SystemExit, match="interpolate must name weights of the model's geometry"):
        export.main([str(folder), *words, "0.5"])
    with pytest.raises(ValueError, match=r"interpolate must name a share in \[0, 1\], got 1\.5"):
        export.Request(run="a", format="fg-clip", output="b", interpolate=("c", 1.5))
