"""Weights & Biases and Trackio: figures arrive, a resumed run is continued, and no failure there reaches the run."""

import sys
from types import SimpleNamespace

import pytest

from fgclip_fast.config import Config
from fgclip_fast.training import trackers
from fgclip_fast.training.log_writer import LogWriter
from fgclip_fast.training.trackers import Trackers
from fgclip_fast.training.trackio_run import TrackioRun
from fgclip_fast.training.wandb_run import WandbRun

KINDS = pytest.mark.parametrize("kind", [WandbRun, TrackioRun])


class Peer:
    """A stand-in for either package: it notes the calls, and fails where it is told to."""

    def __init__(self, fails=()):
        self.fails, self.calls, self.logged, self.config, self.ended = set(fails), [], [], {}, []

    def init(self, **settings):
        self.calls.append(settings)
        self._fail("init" if settings.get("mode") != "offline" else "offline")
        config = SimpleNamespace(update=lambda values, allow_val_change: self.config.update(values))
        return SimpleNamespace(log=self._log, finish=self._finish, define_metric=lambda *_, **__: None, config=config)

    def _log(self, values, **more):
        self._fail("log")
        self.logged.append({**more, **values})

    def _finish(self, **how):
        self._fail("finish")
        self.ended.append(how)

    def _fail(self, call):
        if call in self.fails:
            raise ConnectionError(f"{call}:\n the server is gone")


@pytest.fixture
def peer(monkeypatch):
    def install(kind, *fails):
        monkeypatch.setitem(sys.modules, kind.package, Peer(fails))
        return sys.modules[kind.package]

    return install


@KINDS
def test_finite_numbers_are_sent_beside_the_log(tmp_path, peer, kind):
    there = peer(kind)
    writer = LogWriter(tmp_path, 9, 0, quiet=True, trackers=Trackers([kind(tmp_path, "mugs", {"seed": 3}, 0)]))
    writer.write(5, "validation", {"loss_total": 1.5, "loss_short": float("nan"), "protocol": "words are not sent"})
    writer.close()
    assert there.logged == [{"step": 5, "validation/loss_total": 1.5}] and not there.ended
    assert there.calls[0]["project"] == "mugs" and there.calls[0]["config"] == {"seed": 3}


@KINDS
def test_a_resumed_run_keeps_its_id_and_one_begun_anew_does_not(tmp_path, peer, kind):
    there = peer(kind)
    for done in (0, 4, 0):
        kind(tmp_path, "mugs", {}, done)
    first, resumed, anew = (call["id" if kind is WandbRun else "name"] for call in there.calls)
    assert first == resumed != anew and there.calls[1]["resume"] == "allow"


def test_a_changed_config_is_said(tmp_path, peer):
    wandb, trackio = peer(WandbRun), peer(TrackioRun)
    run = Trackers([WandbRun(tmp_path, "mugs", {}, 0), TrackioRun(tmp_path, "mugs", {}, 0)])
    run.set_config(7, {"micro_batch_size": 4})
    assert wandb.config == {"micro_batch_size": 4} and trackio.logged == [{"step": 7, "config/micro_batch_size": 4}]


def test_without_a_connection_the_figures_are_kept_here(tmp_path, peer, caplog):
    wandb = peer(WandbRun, "init")
    WandbRun(tmp_path, "mugs", {}, 0).write(1, "train", {"total": 2.0})
    assert wandb.calls[-1]["mode"] == "offline" and wandb.logged == [{"step": 1, "train/total": 2.0}]
    assert "wandb: init: the server is gone; the figures are kept in" in caplog.text


@KINDS
@pytest.mark.parametrize("fails", [("init", "offline"), ("log",), ("finish",)])
def test_a_failure_is_told_once_and_the_run_goes_on(tmp_path, peer, caplog, kind, fails):
    fails = fails[:1] if kind is TrackioRun else fails
    peer(kind, *fails)
    run = kind(tmp_path, "mugs", {}, 0)
    for step in (1, 2, 3):
        run.write(step, "train", {"total": 2.0})
    run.close()
    run.set_config(4, {"micro_batch_size": 4})
    assert caplog.text.count(f"{kind.package}: {fails[-1]}: the server is gone; no more figures are sent") == 1


def test_those_that_a_config_names_are_opened_and_closed_also_after_an_error(tmp_path, peer):
    wandb, trackio = peer(WandbRun), peer(TrackioRun)
    with trackers.opened(tmp_path, Config(trackio="mugs"), 0, writes=True) as run:
        run.write(1, "train", {"total": 2.0})
    with trackers.opened(tmp_path, Config(trackio="mugs"), 0, writes=False) as run:
        assert not run
    with pytest.raises(ValueError, match="of the run"), trackers.opened(tmp_path, Config(wandb="mugs"), 0, True):
        raise ValueError("of the run")
    assert len(trackio.logged) == len(trackio.ended) == 1 and wandb.ended == [{"exit_code": 1}]


@KINDS
def test_without_the_package_the_way_to_install_it_is_given(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, kind.package, None)
    with pytest.raises(ValueError, match=f"^{kind.package} needs {kind.title.replace('&', '.')}: .*pip"):
        trackers.check(Config(**{kind.package: "mugs"}))
    trackers.check(Config())


@pytest.mark.slow  # its own process may write the file late on a busy machine
def test_the_real_wandb_keeps_the_figures_of_a_run_that_is_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    for done in (0, 1):
        run = WandbRun(tmp_path, "mugs", {"optim": {"lr": 1e-3}, "micro_batch_size": 31337}, done)
        run.write(done + 1, "train", {"total": 2.0})
        run.set_config(done + 1, {"micro_batch_size": 41414})
        run.close()
    files = sorted(tmp_path.glob(f"wandb/offline-run-*-{(tmp_path / 'wandb' / 'id').read_text()}/*.wandb"))
    assert len(files) in (1, 2) and all(b"train/total" in file.read_bytes() for file in files)
    assert all(b"41414" in file.read_bytes() for file in files)


def test_the_real_trackio_continues_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "figures"))
    trackio = pytest.importorskip("trackio", reason="asks for another Pillow than this package: docs/training.md")
    (tmp_path / "mine").mkdir()
    for done in (0, 1):
        run = TrackioRun(tmp_path / "mine", "mugs", {"optim": {"lr": 1e-3}}, done)
        run.write(done + 1, "train", {"total": 2.0 - done})
        run.set_config(done + 1, {"micro_batch_size": 4 - done})
        run.close()
    (found,) = trackio.Api().runs("mugs")
    assert found.name == f"mine-{(tmp_path / 'mine' / 'trackio' / 'id').read_text()}"
    assert found.config["optim"] == {"lr": 1e-3}
