"""Training from shards to a run: it learns, resumes bit for bit, and survives bad records and interruptions."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image

from fgclip_fast import command_line, suites, train as command
from fgclip_fast.config import Config, Data, Optim, yaml_file
from fgclip_fast.cost import fit, here
from fgclip_fast.model import pretrained
from fgclip_fast.model.fgclip import FGCLIP
from fgclip_fast.report import files
from fgclip_fast.run import trainer
from fgclip_fast.suites import Task
from fgclip_fast.train import train
from fgclip_fast.training import checkpoint, grad_cache, out_of_memory
from fgclip_fast.training.freezing import HELD
from fgclip_fast.training.timing import Stopwatch
from tests.models import SMALL
from tests.refusals import refusal


@pytest.fixture
def config(shards, tmp_path):
    data = Data(train=str(shards / "train-*.tar"), val=str(shards / "val-*.tar"), workers=0, window=2)
    return Config(
        model=SMALL, data=data, optim=Optim(lr=3e-3, warmup=2, clip=1.0), batch_size=4, steps=8, checkpoint_every=4,
        output=str(tmp_path / "run"), device="cpu", threads=2,
    )  # fmt: skip


def losses(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["total"] for line in lines if line["kind"] == "train"}


def records(run):
    """What was left out of the records, as the log counts it."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "records"]


def test_a_run_leaves_config_log_checkpoints_and_figures(config):
    run = train(config)
    names = {p.name for p in run.path.iterdir()}
    assert {"config.yaml", "log.jsonl", "tensorboard", "checkpoints", "evaluation.json"} <= names
    assert (run.path.parent / "last").resolve() == run.path.resolve()
    assert list(losses(run.path)) == list(range(1, 9))
    assert [p.name for p in checkpoint.every(run.path)] == ["step-00000004", "step-00000008"]
    assert run.figures["records"]["images"] > 0
    assert run.figures["records"]["of"]["settings"]["image_size"] == SMALL.vision.image_size
    loaded = pretrained.load(run.path)
    for (name, a), b in zip(run.model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package of Weights & Biases, with what it was told."""
    logged, config = {}, {}
    fields = SimpleNamespace(update=lambda values, **_: config.update(values))

    def init(**settings):
        config.update(settings["config"])
        return SimpleNamespace(log=logged.update, finish=lambda **_: None, define_metric=lambda *_, **__: None,
                               config=fields)  # fmt: skip

    package = SimpleNamespace(init=init, logged=logged, config=config)
    monkeypatch.setitem(sys.modules, "wandb", package)
    return package


def test_a_tracker_is_told_the_figures_of_the_end_and_of_the_start(config, wandb, tmp_path):
    FGCLIP(SMALL).save(tmp_path / "start")
    run = train(replace(config, steps=2, init=str(tmp_path / "start"), wandb="mugs"))
    top1 = "records/hard_negative_top1"
    assert wandb.logged[f"evaluation/{top1}"] == run.figures["records"]["hard_negative_top1"]
    began = suites.evaluate(pretrained.load(tmp_path / "start"), ["records"], Task(data=config.data))["records"]
    assert wandb.logged[f"before/{top1}"] == began.values["hard_negative_top1"]
    assert wandb.logged["step"] == 2 and wandb.logged["train/total"] == losses(run.path)[2]


def test_a_script_without_a_main_guard_trains(config, tmp_path):
    config = replace(config, steps=1, data=replace(config.data, workers=1))
    yaml_file.save(config, tmp_path / "config.yaml")
    script = tmp_path / "mine.py"
    script.write_text(
        "from pathlib import Path\nfrom fgclip_fast.config.yaml_file import load\nfrom fgclip_fast.train import train\n"
        f"print('trained', train(load(Path({str(tmp_path / 'config.yaml')!r}))).path)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("trained "), done.stderr


def test_it_learns(config):
    run = train(replace(config, steps=30, checkpoint_every=0))
    curve = list(losses(run.path).values())
    assert sum(curve[-5:]) < 0.85 * sum(curve[:5])


def test_a_resumed_run_equals_one_that_never_stopped(config, tmp_path):
    whole = train(replace(config, output=str(tmp_path / "whole")))
    train(config)
    last = checkpoint.every(tmp_path / "run")[-1]
    for file in sorted(last.rglob("*"), reverse=True):  # as if killed between step 4 and the last checkpoint
        file.rmdir() if file.is_dir() else file.unlink()
    last.rmdir()
    resumed = train(replace(config, resume="auto"))
    assert losses(resumed.path) == losses(whole.path)
    for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_saved_config_repeats_the_run(config, tmp_path):
    first = train(replace(config, steps=3))
    saved = yaml.safe_load((first.path / "config.yaml").read_text())
    (tmp_path / "again.yaml").write_text(yaml.safe_dump({**saved, "output": str(tmp_path / "again")}))
    command.main(["--config", str(tmp_path / "again.yaml")])
    assert losses(tmp_path / "again") == losses(first.path)


def test_a_run_is_never_overwritten(config):
    train(replace(config, steps=2))
    with pytest.raises(ValueError, match=r"output: .*run holds a run; go on with it by --resume auto"):
        train(replace(config, steps=2))


def test_resuming_with_another_order_is_refused(config):
    train(replace(config, steps=2))
    with pytest.raises(ValueError, match=r"resume: global batch was 4 and is 8 now"):
        train(replace(config, resume="auto", batch_size=8))


def test_resume_auto_starts_where_there_is_nothing_yet(config):
    assert list(losses(train(replace(config, steps=2, resume="auto")).path)) == [1, 2]


def test_resuming_nothing_is_an_error_that_says_so(config, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"resume: .* is neither a run nor a checkpoint"):
        train(replace(config, resume=str(tmp_path / "nowhere")))


def test_micro_batches_give_the_same_run(config, tmp_path):
    whole = train(replace(config, steps=3))
    cached = train(replace(config, steps=3, micro_batch_size=3, output=str(tmp_path / "cached")))
    assert list(losses(cached.path).values()) == pytest.approx(list(losses(whole.path).values()), rel=1e-4)


def test_bf16_trains(config):
    run = train(replace(config, steps=4, precision="bf16"))
    assert all(v == v for v in losses(run.path).values())
    assert all(p.dtype == torch.float32 for p in run.model.parameters())


def test_dry_run_prints_and_writes_nothing(config, capsys, tmp_path):
    train(replace(config, dry_run=True))
    text = capsys.readouterr().out
    assert "parameters" in text and "first batch" in text and not (tmp_path / "run").exists()
    assert re.search(r"a step here +\d+\.\d\d s, \d+\.\d images/s; \d+% of it waits for data", text)
    assert re.search(r"the run here +\d+:\d\d:\d\d, without validation", text)
    assert re.search(r"peak memory +[\d.]+ GB: it fits this machine, [\d.]+ GB are left", text)


def test_automatic_micro_batches_fit_by_count(config, monkeypatch, caplog, tmp_path):
    caplog.set_level("INFO", "fgclip_fast")
    packed = replace(config, steps=2, micro_batch_size="auto", model=replace(SMALL, packing="prefix-tree"))
    monkeypatch.setattr(here, "free_memory", lambda _: 10**12)
    whole = train(packed)
    assert whole.config.micro_batch_size is None and "the whole batch fits" in caplog.text
    monkeypatch.setattr(here, "fit", lambda *count: fit(*count)._replace(images=3, micro_batch_size=2))
    passes = train(replace(packed, output=str(tmp_path / "passes")))
    assert passes.config.micro_batch_size == 2 and "2 images fit, by count" in caplog.text
    assert list(losses(passes.path).values()) == pytest.approx(list(losses(whole.path).values()), rel=1e-4)


def test_a_step_that_no_micro_batch_lets_fit_is_refused(config, monkeypatch):
    monkeypatch.setattr(here, "free_memory", lambda _: 1000)
    packed = replace(config, micro_batch_size="auto", model=replace(SMALL, packing="prefix-tree"))
    with pytest.raises(ValueError, match=r"a step of one image does not fit the 0\.0 GB that are free"):
        train(packed)


def test_padded_texts_are_not_counted(config):
    with pytest.raises(ValueError, match=r"auto needs --model\.packing prefix-tree or padding-free, got none"):
        train(replace(config, micro_batch_size="auto"))


@pytest.mark.parametrize(
    ("error", "micro_batch_size", "way_out"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), None, "--micro-batch-size 2, or auto"),
        (
            RuntimeError("[enforce fail]\nDefaultCPUAllocator: can't allocate memory: 9 bytes"),
            3,
            "--micro-batch-size 2",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), 1, "--model.recompute blocks"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_step_that_runs_out_of_memory_names_the_way_out(
    config, monkeypatch, error, micro_batch_size, way_out, dry_run
):
    def fails(*_):
        raise error

    monkeypatch.setattr(grad_cache, "backward", fails)
    if not dry_run:  # a run halves its passes first
        way_out = "a pass of 1 images does not: pass --model.recompute blocks"
    with pytest.raises(ValueError, match=f"micro_batch_size must let a step fit into memory, .*{way_out}") as raised:
        train(replace(config, micro_batch_size=micro_batch_size, dry_run=dry_run))
    assert raised.value.__cause__ is error


def test_a_step_out_of_memory_is_taken_again_in_smaller_passes(config, monkeypatch, tmp_path, caplog, wandb):
    config = replace(config, steps=2, data=replace(config.data, regions=1))  # so that regions are left out, and counted
    small = train(replace(config, micro_batch_size=2, output=str(tmp_path / "small")))
    backward = grad_cache.backward

    def limited(network, embed, batches, losses_of):
        if len(batches[0].image) > 2:
            for parameter in network.parameters():
                parameter.grad = torch.ones_like(parameter)  # what was done of the gradient before
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return backward(network, embed, batches, losses_of)

    monkeypatch.setattr(grad_cache, "backward", limited)
    run = train(replace(config, wandb="mugs"))
    assert wandb.config["batch_size"] == 4 and wandb.config["micro_batch_size"] == 2
    assert [int(n) for n in re.findall("in passes of (\\d+) images", caplog.text)] == [2]
    assert losses(run.path) == losses(small.path) and records(run.path) == records(small.path)
    for a, b in zip(run.model.parameters(), small.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert yaml_file.load(run.path / "config.yaml").micro_batch_size == 2 == run.config.micro_batch_size


def test_one_of_several_processes_does_not_try_again():
    def fails():
        raise torch.OutOfMemoryError("CUDA out of memory.")

    assert out_of_memory.tried(fails, 8, again=True) is None
    with pytest.raises(ValueError, match=r"a pass of 8 images does not: pass --micro-batch-size 4, or auto"):
        out_of_memory.tried(fails, 8, again=False)


def test_a_hard_negative_term_without_negatives_is_told_once(config, monkeypatch, caplog):
    monkeypatch.setattr(trainer, "_LOOK", 2)
    train(config)
    assert "hold no negatives" not in caplog.text
    train(replace(config, data=replace(config.data, negatives=0), output=f"{config.output}-without"))
    assert caplog.text.count("the first 3 steps hold no negatives") == 1


def test_a_validation_out_of_memory_is_not_laid_to_the_step(config, monkeypatch):
    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(suites, "evaluate", fails)
    with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory\.$"):
        train(replace(config, eval_every=2))


def test_another_error_of_a_step_stays_as_it_is(config, monkeypatch):
    def fails(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(grad_cache, "backward", fails)
    with pytest.raises(RuntimeError, match=r"^shapes differ$"):
        train(config)


def test_dry_run_tells_whether_a_step_fits_a_card(config, capsys):
    train(replace(config, dry_run=True, card="h100", model=replace(SMALL, packing="prefix-tree")))
    assert "a step          fits H100 SXM" in capsys.readouterr().out


def test_a_card_is_asked_about_in_a_dry_run_only(config):
    with pytest.raises(ValueError, match="card must be left out without dry_run, got h100"):
        replace(config, card="h100")


def test_ctrl_c_leaves_a_usable_run(config, tmp_path):
    config = replace(config, steps=100000, checkpoint_every=0)
    yaml_file.save(config, tmp_path / "config.yaml")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-m", "fgclip_fast.train", "--config", str(tmp_path / "config.yaml")]
    process = subprocess.Popen(words, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    log = tmp_path / "run" / "log.jsonl"
    for _ in range(600):
        if log.exists() and len(log.read_text().splitlines()) > 3:
            break
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output.decode()
    step = int(checkpoint.newest(tmp_path / "run").name.removeprefix("step-"))
    assert step == max(losses(tmp_path / "run"))
    pretrained.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data.train=", "data.train must name shards, got ''; pass --data.train 'folder/train-*.tar'"),
        ("--data.train {shards}/train-00000.tar::", "data.train must name shards, got '{shards}/train-00000.tar::'"),
        ("--data.train nosuch", "data.train: shards: 'nosuch' names nosuch, where no tar file exists"),
        ("--data.val nosuch", "data.val: shards: 'nosuch' names nosuch, where no tar file exists"),
        ("--output {shards}/val-00000.tar", "output must be a folder, got the file {shards}/val-00000.tar"),
        ("--model.text.vocabulary 100", "model.text.vocabulary must be >= 49408, as many as CLIP's tokens, got 100"),
        ("--device foo", "device must be auto, cpu, cuda or cuda:0, got foo"),
        ("--steps None --epochs 0.01", "epochs must make a step or more, at 15 steps each, got 0.01"),
        ("--resume nosuch", "resume: nosuch is neither a run nor a checkpoint"),
        ("--init nosuch", "nosuch does not exist"),
    ],
)
def test_an_argument_that_cannot_be_is_named_and_leaves_no_run(config, shards, tmp_path, words, message, capsys):
    yaml_file.save(config, tmp_path / "c.yaml")
    words = ["--config", str(tmp_path / "c.yaml"), *words.format(shards=shards).split()]
    assert message.format(shards=shards) in refusal(command.main, words, capsys)
    assert not (tmp_path / "run").exists()


def test_an_empty_pattern_is_not_the_current_directory(shards, monkeypatch, capsys):
    monkeypatch.chdir(shards)
    message = refusal(command.main, ["--preset", "stage2-vit-b16", "--device", "cpu"], capsys)
    assert message.startswith("error: train: data.train must name shards, got ''")


def test_dry_run_tells_how_many_tokens_the_tree_saves(config, capsys):
    train(replace(config, dry_run=True, model=replace(SMALL, packing="prefix-tree")))
    assert "packed texts" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_no_step_makes_the_host_wait_for_the_gpu(config, monkeypatch, micro_batch_size):
    """The first two steps may wait, since kernels are compiled and moments are made; the last saves a checkpoint."""

    class Watched(Stopwatch):
        steps = 0

        def step_begins(self):
            torch.cuda.set_sync_debug_mode("error" if 2 <= Watched.steps < config.steps - 1 else "default")
            Watched.steps += 1
            super().step_begins()

    monkeypatch.setattr(trainer, "Stopwatch", Watched)
    model = replace(SMALL, packing="prefix-tree")
    try:
        train(replace(config, model=model, device="cuda", checkpoint_every=0, micro_batch_size=micro_batch_size))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert Watched.steps == config.steps


def parameters_of(run):
    return dict(pretrained.load(run).named_parameters())


@pytest.mark.parametrize("micro_batch_size", [None, 3])
@pytest.mark.parametrize("part", ["text", "vision", "all-but-projections"])
def test_what_is_frozen_keeps_its_bits_and_the_rest_trains(config, part, micro_batch_size):
    run = train(replace(config, steps=2, freeze=part, micro_batch_size=micro_batch_size))
    torch.manual_seed(config.seed)
    before = dict(FGCLIP(config.model).named_parameters())
    changed = {name for name, p in run.model.named_parameters() if not torch.equal(p, before[name])}
    assert "logit_scale" in changed and not any(name.startswith(HELD[part]) for name in changed)
    assert any(name.startswith("visual_projection") for name in changed) == (part != "vision")
    assert any(name.startswith("text_model") for name in changed) == (part == "vision")


def test_a_resumed_run_with_everything_held_averaged_and_pulled_equals_the_whole_one(config, tmp_path):
    optim = replace(config.optim, average=0.9, l2_start=1.0, layer_decay=0.7)
    config = replace(config, optim=optim, freeze="text", keep=9)
    whole = train(replace(config, output=str(tmp_path / "whole")))
    first = tmp_path / "whole" / "checkpoints" / "step-00000004"
    resumed = train(replace(config, resume=str(first)))
    assert losses(resumed.path) == {step: loss for step, loss in losses(whole.path).items() if step > 4}
    saved = parameters_of(resumed.path)
    for name, p in whole.model.named_parameters():
        assert torch.equal(p, resumed.model.get_parameter(name)) and torch.equal(p, saved[name]), name


def test_own_shards_without_validation_are_said_once(config, caplog):
    said = "data.val names no shards, so the run has no validation"
    with caplog.at_level("INFO"):
        train(replace(config, steps=1))
        assert said not in caplog.text
        data = replace(config.data, val="auto")
        train(replace(config, steps=2, eval_every=1, data=data, output=config.output + "-unchecked"))
    assert caplog.text.count(said) == 1


def test_the_best_checkpoint_is_kept_and_patience_ends_the_run(config):
    optim = replace(config.optim, lr=1e-12)  # nothing changes, so the second validation is no better
    run = train(replace(config, optim=optim, eval_every=2, keep_best="short_image_to_text_r@1", patience=1))
    assert checkpoint.step_of(checkpoint.newest(run.path)) == 4 and (run.path / "evaluation.json").is_file()
    record = json.loads((run.path / "best" / "best.json").read_text())
    assert record["step"] == 2 and checkpoint.step_of(checkpoint.newest(run.path / "best")) == 2
    pretrained.load(run.path / "best")


def test_what_is_forgotten_of_general_data_is_measured_at_the_end(config, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = tmp_path / "sets" / "sugarcrepe"
    folder.mkdir(parents=True)
    for number in range(4):
        Image.effect_noise((64, 48), 80).convert("RGB").save(folder / f"{number}.jpg")
    asked = {n: {"filename": f"{n}.jpg", "caption": f"a {n}", "negative_caption": f"b {n}"} for n in range(4)}
    (folder / "add_att.json").write_text(json.dumps(asked))
    run = train(replace(config, steps=2, forgetting=str(tmp_path / "sets")))
    kept = json.loads((run.path / "evaluation.json").read_text())["compositional/sugarcrepe"]
    assert kept["of"]["asked"] == 4 and kept["against"]["weights"] == "init" and kept["against"]["step"] == 0
    assert kept["against"]["figures"].keys() == {name for name in kept if name not in ("of", "against")}
    assert "compositional/sugarcrepe" in files.read(run.path).kept
    assert caplog.text.count("compositional/winoground: not in") == 1  # though two models were asked
    with pytest.raises(ValueError, match="forgetting must be a folder of public data sets"):
        train(replace(config, output=str(tmp_path / "other"), forgetting=str(tmp_path / "run")))
    assert not (tmp_path / "other").exists()


def test_a_run_may_keep_the_fine_scales_that_it_starts_from(config, tmp_path):
    first = train(replace(config, steps=1))
    again = dict(init=str(first.path), steps=1, optim=replace(config.optim, lr=1e-12))
    kept = train(replace(config, keep_scales=True, output=str(tmp_path / "kept"), **again)).model
    reset = train(replace(config, output=str(tmp_path / "reset"), **again)).model
    assert kept.logit_scale_hardneg == first.model.logit_scale_hardneg != first.model.logit_scale
    assert reset.logit_scale_hardneg == first.model.logit_scale


@pytest.mark.parametrize("preset", ["finetune-vit-b16", "finetune-vit-l14-336"])
def test_a_fine_tuning_preset_counts_in_epochs_and_keeps_the_scales(shards, tmp_path, preset):
    start = FGCLIP(SMALL)
    with torch.no_grad():
        start.logit_scale_finegraind.fill_(1.5), start.logit_scale_hardneg.fill_(2.5)
    start.save(tmp_path / "start")
    words = f"--preset {preset} --init {tmp_path}/start --data.train {shards}/train-*.tar --data.val {shards}/val-*.tar"
    words += f" --output {tmp_path}/run --data.workers 0 --batch-size 12 --device cpu --precision fp32"
    config = command_line.parse(words.split())
    assert config.epochs == 10 and config.loss.mask_equal_texts
    run = train(replace(config, epochs=4))
    lines = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    rates = [line["lr"] / config.optim.lr for line in lines if line["kind"] == "train"]
    assert len(rates) == 4 * 5 and rates[:2] == [0.5, 1.0] and sorted(rates[1:], reverse=True) == rates[1:]
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [5, 10, 15]
    model = run.model
    assert model.logit_scale_finegraind.item() == pytest.approx(1.5, abs=1e-3)
    assert model.logit_scale_hardneg.item() == pytest.approx(2.5, abs=1e-3)


def test_own_training_shards_are_not_validated_on_the_embedded_set(config):
    run = train(replace(config, steps=1, data=replace(config.data, val="auto")))
    assert run.figures == {} and run.config.data.val == ""


def test_a_fine_tuning_preset_wants_weights_to_start_from(shards, capsys):
    message = refusal(command.main, ["--preset", "finetune-vit-b16", "--data.train", str(shards)], capsys)
    assert "init must name the weights that finetune-vit-b16 starts from, got None" in message
