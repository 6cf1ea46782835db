"""The train command line: what overrides what, and the message for each mistake."""

import dataclasses
import typing
from collections.abc import Iterator

import pytest

from fgclip_fast import command_line, train
from fgclip_fast.config import Config, Loss, yaml_file
from fgclip_fast.config.rules import Rule
from fgclip_fast.presets import B16, PRESETS
from tests.refusals import refusal


def test_no_word_is_the_tiny_preset():
    assert command_line.parse([]) == PRESETS["tiny"]


def test_weights_alone_are_not_asked_to_be_of_the_tiny_size():
    config = command_line.parse(["--init", "w", "--model.vision.layers", "5"])
    assert config == dataclasses.replace(
        PRESETS["tiny"], init="w", model=dataclasses.replace(B16, vision=dataclasses.replace(B16.vision, layers=5))
    )
    assert command_line.parse(["--init", "None"]).model == PRESETS["tiny"].model


def test_flags_override_the_file_which_overrides_the_preset(tmp_path):
    (tmp_path / "c.yaml").write_text("batch_size: 7\nloss: {region: 0.3, short: 2}\n")
    words = ["--preset", "stage2-vit-b16", f"--config={tmp_path / 'c.yaml'}", "--loss.region", "0.4"]
    config = command_line.parse(words)
    assert (config.batch_size, config.loss) == (7, Loss(short=2.0, region=0.4))
    assert config.optim == PRESETS["stage2-vit-b16"].optim


def test_a_saved_config_alone_repeats_the_run(tmp_path):
    config = command_line.parse(["--optim.betas", "0.8", "0.9", "--data.train", "a.tar", "--seed", "3"])
    yaml_file.save(config, tmp_path / "config.yaml")
    assert command_line.parse(["--config", str(tmp_path / "config.yaml")]) == config


@pytest.mark.parametrize(
    "words", ["--resume auto --output {run}", "--resume={run}", "--resume {run}/checkpoints/step-1"]
)
def test_resuming_goes_on_as_the_run_was(words, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints" / "step-1").mkdir(parents=True)
    yaml_file.save(dataclasses.replace(PRESETS["stage2-vit-b16"], seed=5), run / "config.yaml")
    config = command_line.parse([*words.format(run=run).split(), "--batch-size", "9"])
    assert (config.seed, config.batch_size) == (5, 9) and config.optim == PRESETS["stage2-vit-b16"].optim


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "stage2-vit-b61"], "nearest is 'stage2-vit-b16'"),
        (["--config", "/nowhere.yaml"], "--config: /nowhere.yaml does not exist"),
        (["--config"], "--config: expected one argument"),
        (["--config", "--seed", "3"], "--config: expected one argument"),
        (["--preset="], "--preset: expected one argument, got an empty word"),
        (["--resume="], "--resume: expected one argument, got an empty word"),
    ],
)
def test_a_wrong_first_flag_ends_with_one_line(words, message, capsys):
    refused = refusal(train.main, words, capsys)
    assert refused.startswith("error: train: ") and message in refused


def test_an_unknown_flag_names_the_nearest(capsys):
    with pytest.raises(SystemExit):
        command_line.parse(["--los.region", "1"])
    assert "--loss.region" in capsys.readouterr().err


def test_help_names_every_field(capsys):
    with pytest.raises(SystemExit):
        command_line.parse(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("--preset", "--config", "--loss.hard-negative", "--data.train", "--optim.lr"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--eval-every -1", "eval_every must be >= 0, or epoch, got -1"),
        ("--checkpoint-every -3", "checkpoint_every must be >= 0, got -3"),
        ("--batch-size 0", "batch_size must be > 0, got 0"),
        ("--epochs nan", "epochs must be > 0, got nan"),
        ("--epochs inf", "epochs must be finite, got inf"),
        (f"--seed {2**63}", f"seed must be in [-2^63, 2^63), got {2**63}"),
        ("--device meta", "device must be auto, cpu, cuda or cuda:0, got meta"),
        ("--init=", "init must be a path, not an empty word, got ''"),
        ("--optim.text-lr -1", "optim.text_lr must be >= 0, got -1.0"),
        ("--optim.max-scale nan", "optim.max_scale must be > 0, got nan"),
        ("--optim.max-scale -5", "optim.max_scale must be > 0, got -5.0"),
        ("--optim.betas 2 3", "optim.betas must be in [0, 1), got (2.0, 3.0)"),
        ("--optim.eps 0", "optim.eps must be > 0, got 0.0"),
        ("--loss.long inf", "loss.long must be finite, got inf"),
        ("--data.negatives -1", "data.negatives must be >= 0, got -1"),
        ("--data.box-margin inf", "data.box_margin must be finite, got inf"),
        ("--model.projection 0", "model.projection must be > 0, got 0"),
        ("--model.layer-norm-eps -1", "model.layer_norm_eps must be > 0, got -1.0"),
        ("--model.vision.layers 0", "model.vision.layers must be > 0, got 0"),
        ("--model.vision.heads 3", "model.vision.width must be a multiple of model.vision.heads, got (128, 3)"),
        ("--model.text.heads 5", "model.text.width must be a multiple of model.text.heads, got (96, 5)"),
    ],
)
def test_an_argument_that_cannot_be_is_named(words, message, capsys):
    assert message in refusal(train.main, words.split(), capsys)


def numbers(part: type, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Name of each field that holds numbers, and whether a rule says which."""
    for name, hint in typing.get_type_hints(part, include_extras=True).items():
        plain = typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        if dataclasses.is_dataclass(plain):
            yield from numbers(plain, f"{prefix}{name}.")
        elif {int, float} & {plain, *typing.get_args(plain)}:
            yield prefix + name, any(isinstance(rule, Rule) for rule in getattr(hint, "__metadata__", ()))


def test_every_number_of_the_config_has_a_rule():
    found = dict(numbers(Config))
    assert len(found) > 30 and [name for name, ruled in found.items() if not ruled] == []
