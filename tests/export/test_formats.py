"""Each export is loaded by the package that it is for, and computes there what the model computes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fgclip_fast
from fgclip_fast.export import __main__ as export, f_vit, probe
from fgclip_fast.model.fgclip import FGCLIP
from tests.models import MINI


@pytest.mark.parametrize(
    ("name", "consumer"),
    [("fg-clip", "fgclip_fast"), ("hf", "transformers"), ("open-clip", "open_clip"), ("vision-tower", "transformers")],
)
def test_the_consumer_computes_the_same(folder, exported, name, consumer):
    pytest.importorskip(consumer)
    out = exported(name)
    if name == "fg-clip":
        back, model = fgclip_fast.load(out), fgclip_fast.load(folder)
        assert all(back.state_dict()[name].equal(value) for name, value in model.state_dict().items())
    elif name != "vision-tower":
        back, model = fgclip_fast.load(out), fgclip_fast.load(folder)
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
def test_weights_between_two_models_are_found(folder, tmp_path, share):
    torch.manual_seed(1)
    FGCLIP(MINI).save(tmp_path / "init")
    ours, begun, between = (fgclip_fast.load(x) for x in (folder, tmp_path / "init", folder))
    request = export.Request(run="a", format="hf", output="b", interpolate=(str(tmp_path / "init"), share))
    export.mix(between, request.others)
    for name, value in between.state_dict().items():
        expected = (1 - share) * begun.state_dict()[name] + share * ours.state_dict()[name]
        torch.testing.assert_close(value, expected)


def test_the_weighted_mean_of_several_models_is_written(folder, tmp_path):
    for seed in (1, 2):
        torch.manual_seed(seed)
        FGCLIP(MINI).save(tmp_path / str(seed))
    words = [str(folder), "--format", "fg-clip", "--merge", str(tmp_path / "1"), str(tmp_path / "2")]
    export.main([*words, "--weights", "0.5", "0.2", "0.3", "--output", str(tmp_path / "out")])
    of = {x: fgclip_fast.load(x).state_dict() for x in (folder, *map(tmp_path.joinpath, ("1", "2", "out")))}
    for name, value in of[folder].items():
        first, second = of[tmp_path / "1"][name], of[tmp_path / "2"][name]
        torch.testing.assert_close(of[tmp_path / "out"][name], 0.5 * value + 0.2 * first + 0.3 * second)
    equal = export.Request(run="a", format="hf", output="b", merge=("b", "c")).others
    assert equal == pytest.approx({"b": 1 / 3, "c": 1 / 3})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"merge": ("b",), "weights": (1.0,)}, r"weights must be one a model, 2, got \(1\.0,\)"),
        ({"merge": ("b",), "weights": (0.5, 0.6)}, r"weights must be 1 in sum, got \(0\.5, 0\.6\)"),
        ({"weights": (1.0,)}, "weights must be left out without merge"),
        ({"merge": ("b",), "interpolate": ("c", 0.5)}, "merge must be left out beside interpolate"),
        ({"interpolate": ("c", 1.5)}, r"interpolate must name a share in \[0, 1\], got 1\.5"),
        ({"precision": "int8"}, "precision is for --format onnx or immich, got it with fg-clip"),
        ({"format": "immich", "records": "a.tar"}, "records is for --format onnx, got it with immich"),
        ({"classes": Path("a.txt")}, "classes is for --format f-vit, got it with fg-clip"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        export.Request(**{"run": "a", "format": "fg-clip", "output": "b", **given})


def test_f_vit_finds_every_class_and_the_background(folder, exported, tmp_path):
    pytest.importorskip("open_clip")
    out = exported("f-vit")
    names = json.loads((out / "all_classes.json").read_text())
    seen = json.loads((out / "seen_classes.json").read_text())
    stored = torch.load(out / "class_embeddings.pt", weights_only=True)
    assert (len(names), len(seen), set(stored) - set(names)) == (65, 48, {"background"})
    assert set(seen) < set(names) and "person" in seen and "umbrella" not in seen
    texts = ["This is a toy traffic light.", "There is an orange in the scene.", "itap of my tv."]
    assert [text in f_vit.texts_of(name) for text, name in zip(texts, ("traffic_light", "orange", "TV"), strict=True)]
    assert len({*f_vit.texts_of("cat")}) == 63
    model = fgclip_fast.load(folder)
    mean = model.encode_text(f_vit.texts_of("umbrella")).mean(dim=0)
    torch.testing.assert_close(stored["umbrella"], mean / mean.norm())
    (tmp_path / "names.txt").write_text("traffic_light\nmug\n")
    words = ["--classes", str(tmp_path / "names.txt"), "--output", str(tmp_path / "own")]
    export.main([str(folder), "--format", "f-vit", *words])
    assert [*torch.load(tmp_path / "own/class_embeddings.pt")] == ["traffic_light", "mug", "background"]


def test_class_names_that_stand_twice_are_refused(folder, tmp_path):
    (tmp_path / "names.txt").write_text("mug\ncup\nmug\n")
    words = ["--format", "f-vit", "--classes", str(tmp_path / "names.txt"), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"names.txt must hold names, each once, got mug"):
        export.main([str(folder), *words])


def test_weights_of_another_geometry_are_not_mixed(folder, tmp_path):
    FGCLIP(replace(MINI, projection=16)).save(tmp_path / "init")
    with pytest.raises(ValueError, match="interpolate must name weights of the model's geometry"):
        export.mix(fgclip_fast.load(folder), {str(tmp_path / "init"): 0.5})
