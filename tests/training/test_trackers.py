"""Weights & Biases: the figures arrive, a resumed run is continued there, and no failure there reaches the run."""

import sys
from types import SimpleNamespace

import pytest

from fgclip_fast.training import wandb_run
from fgclip_fast.training.log_writer import LogWriter
from fgclip_fast.training.wandb_run import WandbRun


class Peer:
    """A stand-in for the package: it notes the calls, and fails where it is told to."""

    def __init__(self, fails=()):
        self.fails, self.calls, self.logged = set(fails), [], []

    def init(self, **settings):
        self.calls.append(settings)
        self._fail("init" if settings.get("mode") != "offline" else "offline")
        return SimpleNamespace(log=self._log, finish=lambda: self._fail("finish"), define_metric=lambda *_, **__: None)

    def _log(self, values):
        self._fail("log")
        self.logged.append(values)

    def _fail(self, call):
        if call in self.fails:
            raise ConnectionError(f"{call}:\n the server is gone")


@pytest.fixture
def peer(monkeypatch):
    def install(*fails):
        monkeypatch.setitem(sys.modules, "wandb", Peer(fails))
        return sys.modules["wandb"]

    return install


def test_figures_are_sent_beside_the_log(tmp_path, peer):
    wandb = peer()
    writer = LogWriter(tmp_path, 9, 0, quiet=True, wandb=WandbRun(tmp_path, "mugs", {"seed": 3}, 0))
    writer.write(5, "validation", {"loss_total": 1.5, "protocol": "words are not sent"})
    writer.close()
    assert wandb.logged == [{"step": 5, "validation/loss_total": 1.5}]
    assert wandb.calls[0]["project"] == "mugs" and wandb.calls[0]["config"] == {"seed": 3}


def test_a_resumed_run_keeps_its_id_and_one_begun_anew_does_not(tmp_path, peer):
    wandb = peer()
    for done in (0, 4, 0):
        WandbRun(tmp_path, "mugs", {}, done)
    first, resumed, anew = (call["id"] for call in wandb.calls)
    assert first == resumed != anew and wandb.calls[1]["resume"] == "allow"


def test_without_a_connection_the_figures_are_kept_here(tmp_path, peer, caplog):
    wandb = peer("init")
    WandbRun(tmp_path, "mugs", {}, 0).write(1, "train", {"total": 2.0})
    assert wandb.calls[-1]["mode"] == "offline" and wandb.logged == [{"step": 1, "train/total": 2.0}]
    assert "wandb: init: the server is gone; the figures are kept in" in caplog.text


@pytest.mark.parametrize("fails", [("init", "offline"), ("log",), ("finish",)])
def test_a_failure_is_told_once_and_the_run_goes_on(tmp_path, peer, caplog, fails):
    peer(*fails)
    run = WandbRun(tmp_path, "mugs", {}, 0)
    for step in (1, 2, 3):
        run.write(step, "train", {"total": 2.0})
    run.close()
    assert caplog.text.count(f"wandb: {fails[-1]}: the server is gone; no more figures are sent") == 1


def test_without_the_package_the_pip_line_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"wandb needs W&B: pip install 'fgclip_fast\[wandb\]'"):
        wandb_run.check("mugs")
    wandb_run.check(None)


def test_the_real_package_keeps_the_figures_of_a_run_that_is_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    for done in (0, 1):
        run = WandbRun(tmp_path, "mugs", {"optim": {"lr": 1e-3}}, done)
        run.write(done + 1, "train", {"total": 2.0})
        run.close()
    files = sorted(tmp_path.glob(f"wandb/offline-run-*-{(tmp_path / 'wandb' / 'id').read_text()}/*.wandb"))
    assert len(files) in (1, 2) and all(b"train/total" in file.read_bytes() for file in files)
