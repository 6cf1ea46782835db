"""The commands: shards are indexed and checked."""

from pathlib import Path

import pytest

from fgclip_fast.data.__main__ import main
from fgclip_fast.scenes import locate, write


@pytest.mark.parametrize("command", ["index", "check"])
def test_missing_shards_give_one_line(command, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: data: shards: .*nowhere\.tar, where no tar file exists$"):
        main([command, str(tmp_path / "nowhere.tar")])


def test_check_counts_a_damaged_shard_each_time(tmp_path, capsys, encoded, record, write_shard):
    path = write_shard(tmp_path / "a.tar", [(encoded(), record(number)) for number in range(8)])
    path.write_bytes(path.read_bytes()[:-15_000])
    for _ in range(2):  # the second time from the index
        main(["check", str(path)])
        assert "1  damaged shard" in capsys.readouterr().out


@pytest.fixture
def no_home(monkeypatch):
    """An account without a home, as of a container's `--user 1042`: pathlib raises so where no variable names it."""

    def raises():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", raises)
    for name in ("HOME", "XDG_CACHE_HOME", "FGCLIP_CACHE"):
        monkeypatch.delenv(name, raising=False)


def test_shards_are_read_by_an_account_without_a_home(tmp_path, capsys, caplog, encoded, record, write_shard, no_home):
    caplog.set_level("INFO")
    path = write_shard(tmp_path / "a.tar", [(encoded(), record())])
    main(["check", str(path)])
    assert "1 good records, 0 bad" in capsys.readouterr().out and (tmp_path / "a.tar.index").exists()
    (tmp_path / "a.tar.index").unlink()
    (tmp_path / "a.tar.index").mkdir()  # root may write anywhere, but not over a folder
    main(["check", str(path)])
    assert "no folder to keep its index in; it is made again at each start" in caplog.text


def test_the_embedded_set_of_an_account_without_a_home_wants_a_folder(tmp_path, monkeypatch, no_home):
    with pytest.raises(FileNotFoundError, match="no home folder for a cache; set HOME, or FGCLIP_CACHE and XDG_CACHE"):
        locate.embedded()
    monkeypatch.setenv("FGCLIP_CACHE", str(tmp_path))
    monkeypatch.setattr(write, "write_scenes", lambda folder: folder.mkdir(parents=True))
    assert locate.embedded().parent == tmp_path


@pytest.mark.parametrize("samples, message", [(0, "no record"), (2, "no good record")])
def test_check_fails_if_nothing_is_good(tmp_path, caplog, encoded, write_shard, samples, message):
    path = write_shard(tmp_path / "a.tar", [(encoded(), {})] * samples)
    with pytest.raises(SystemExit, match=rf"^error: data check: .*a\.tar holds {message}$"):
        main(["check", str(path)])
    assert ("a.tar: holds no sample" in caplog.text) == (samples == 0)


def test_check_of_a_wrong_limit_gives_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: data check: --limit must be at least 1 record, got -1$"):
        main(["check", str(tmp_path), "--limit", "-1"])


def test_check_counts_what_training_would_leave_out(tmp_path, capsys, encoded, record, write_shard):
    regions = [{"bbox": [0, 0, 1, 1], "short_expr": "mug " * 80}] + [{"bbox": [0, 0, 1, 1], "short_expr": "pot"}] * 6
    path = write_shard(tmp_path / "a.tar", [(encoded(), record(caption="mug " * 300, bbox_info=regions))])
    main(["check", str(path)])
    printed = capsys.readouterr().out
    for line in (
        "3  region beyond data.regions",
        "1  region text or negative cut to 77 tokens",
        "1  long caption cut to 248 tokens",
    ):
        assert line in printed
