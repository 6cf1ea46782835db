"""Every command of docs/deploy.md runs as it stands there, and every export opens as its table says."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from fgclip_fast.export.__main__ import FORMATS

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
COMMANDS = [
    line
    for _, block in re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith(("fgclip ", "python -m fgclip_fast."))
]
ROW = r"^\| [^|]+ \| `(\w[\w-]*)` \| [^|]+ \| (.*) \|$"
ROWS = dict(re.findall(ROW, PAGE, flags=re.MULTILINE))


def marked(value: str) -> object:
    """Tracing ONNX graphs takes half a minute."""
    slow = "onnx" in value or "immich" in value
    return pytest.param(value, marks=pytest.mark.slow) if slow else value


@pytest.fixture
def place(folder, shards, tmp_path, monkeypatch):
    """A folder with all that the commands name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine").symlink_to(folder)
    (tmp_path / "mine").symlink_to(shards)
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/a.jpg", "photos/b.jpg"):
        Image.new("RGB", (320, 240), (200, 90, 10)).save(tmp_path / name)
    (tmp_path / "names.txt").write_text("mug\ncup\n")
    return tmp_path


@pytest.mark.parametrize("line", map(marked, COMMANDS))
def test_a_command_runs_as_it_stands_in_the_page(place, line):
    if "parquet" in line or "embedded/" in line:  # a folder of parquet parts
        pytest.importorskip("pyarrow")
    before = {*place.iterdir()}
    words = shlex.split(line.replace("python -m fgclip_fast.", "fgclip "))
    home = f"fgclip_fast.{words[1]}"
    room = importlib.import_module(f"{home}.__main__" if words[1] == "export" else home)
    room.main(words[2:])
    assert "--output" not in words or {*place.iterdir()} - before


def test_the_table_names_every_format():
    assert ROWS.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", [marked(name) for name, opened in ROWS.items() if "(" in opened])
def test_an_export_opens_as_the_table_says(exported, name):
    call = re.search(r"`([\w.]+)\(\"(.*?)\"\)`", ROWS[name])
    where, attribute = f"transformers.{call[1]}".split(".", 1) if call[1][0].isupper() else call[1].split(".", 1)
    opened = pytest.importorskip(where)
    for part in attribute.split("."):
        opened = getattr(opened, part)
    assert opened(call[2].replace("out", str(exported(name)), 1)) is not None
