"""Imports point down the floors of docs/architecture.md, and never in a circle: held by reading every file."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fgclip_fast"
# From the ground up. A room is a folder, or a file in the root of the package; it may import from itself and from
# the floors below its own. What is named on no floor is a command: every `__main__.py` and other files in the root.
FLOORS = (
    {"files", "process"},
    {"config", "kernels", "_native"},
    {"ops"},
    {"inputs"},
    {"model", "data"},
    {"training", "evaluation"},
    {"presets", "preflight", "command", "figures_rows"},
    {"scenes", "integrations"},
    {"suites", "figures_file", "figures_table"},
    {"report", "cost", "curate", "export"},
    {"inspection", "run"},
)
COMMANDS = len(FLOORS)
MAY_IMPORT_ONLY = {
    "kernels": {"files"},
    "ops": {"kernels", "_native"},
}  # usable in another code base, without our config
FILES = sorted(PACKAGE.rglob("*.py")) + sorted((ROOT / "kernels").rglob("*.py"))


def name_of(file: Path) -> str:
    """Dotted name inside the package: ``ops.native``; ``ops`` for its ``__init__``."""
    if file.is_relative_to(PACKAGE):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
    else:
        parts = ("kernels", *file.relative_to(ROOT / "kernels").with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


NAMES = {name_of(file) for file in FILES}
PACKAGES = sorted(name_of(file) for file in FILES if file.name == "__init__.py")


def room_of(name: str) -> str:
    return name.split(".")[0]


def floor_of(name: str) -> int:
    if name.endswith("__main__"):
        return COMMANDS
    return next((number for number, rooms in enumerate(FLOORS) if room_of(name) in rooms), COMMANDS)


def imported(file: Path) -> Iterator[str]:
    """Names inside the package, those that a function or a type checker imports included."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in found:
            if name.startswith("fgclip_fast."):
                yield _module(name.removeprefix("fgclip_fast."))


def _module(name: str) -> str:
    """The file that holds a name: ``ops.native.address`` is found in ``ops.native``."""
    while name not in NAMES and "." in name:
        name = name.rpartition(".")[0]
    return name


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_down(file):
    mine = name_of(file)
    for name in imported(file):
        if room_of(name) == room_of(mine):
            continue
        if room_of(mine) in MAY_IMPORT_ONLY:
            assert room_of(name) in MAY_IMPORT_ONLY[room_of(mine)], f"{mine} may not import {name}"
            continue
        below = floor_of(name) < floor_of(mine)
        assert below or floor_of(mine) == COMMANDS, f"{mine} (floor {floor_of(mine)}) may not import {name}"


def test_every_folder_stands_on_a_floor():
    rooms = {room_of(name) for name in PACKAGES if name}
    assert rooms <= set().union(*FLOORS), f"{rooms - set().union(*FLOORS)}: give each a floor in FLOORS"


def test_no_circles():
    edges = {name_of(file): set(imported(file)) - {name_of(file)} for file in FILES}
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in finished:
            for other in sorted(edges.get(name, ())):
                # A file that imports from its own folder gets a sibling, or what the folder's __init__ has so far.
                if not name.startswith(f"{other}."):
                    visit(other, (*path, name))
            finished.add(name)

    for name in sorted(edges):
        visit(name, ())


def loaded_by(code: str) -> set[str]:
    code += "; import sys; print(*(name for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_ops_load_nothing_else_of_the_package():
    ours = {name for name in loaded_by("import fgclip_fast.ops") if name.startswith("fgclip_fast.")}
    parts = {name.split(".")[1] for name in ours}
    assert parts <= {"ops", "kernels", "_native"}, parts


def test_importing_the_package_loads_nothing():
    loaded = loaded_by("import fgclip_fast")
    assert "torch" not in loaded
    assert not any(name.startswith("fgclip_fast.") for name in loaded)


def test_every_package_lists_its_public_names():
    # Of these the other rooms call the files.
    without = {"kernels", "files", "process", "run", "curate.lexicon", "curate.models", "curate.places"}
    packages = [f"fgclip_fast.{name}".rstrip(".") for name in PACKAGES if name not in without]
    modules = {name: importlib.import_module(name) for name in packages}
    lacking = [name for name, module in modules.items() if not hasattr(module, "__all__")]
    assert not lacking, f"no __all__ in the __init__ of {', '.join(lacking)}"
    for name, module in modules.items():
        missing = [public for public in module.__all__ if not hasattr(module, public)]
        assert not missing, f"{name}: __all__ lists {missing}, which it does not have"
