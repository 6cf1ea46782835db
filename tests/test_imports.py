"""Imports point one way: design section 2, held by reading every file."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fgclip_fast"
COMMANDS = "command"  # the files in the root of the package
# part -> the parts that it may import beside itself; config is a leaf
MAY_IMPORT = {
    "config": set(),
    "kernels": set(),
    "ops": {"kernels"},
    "inputs": {"ops", "config"},
    "model": {"ops", "inputs", "config"},
    "data": {"ops", "inputs", "config"},
    "training": {"ops", "inputs", "model", "config"},
    "evaluation": {"ops", "inputs", "model", "data", "config"},
    "scenes": {"ops", "inputs", "data", "config"},
    "curate": {"ops", "inputs", "data", "config"},
}
FILES = sorted(PACKAGE.rglob("*.py")) + sorted((ROOT / "kernels").rglob("*.py"))


def name_of(file: Path) -> str:
    """Dotted name inside the package: ``ops.native``; ``ops`` for its ``__init__``."""
    if file.is_relative_to(PACKAGE):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
    else:
        parts = ("kernels", *file.relative_to(ROOT / "kernels").with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


NAMES = {name_of(file) for file in FILES}


def part_of(name: str) -> str:
    first = name.split(".")[0]
    return first if first in MAY_IMPORT else COMMANDS


def imported(file: Path, at_import_time: bool = False) -> Iterator[str]:
    """Names inside the package; ``at_import_time`` leaves out what functions import, and what only types need."""
    tree = ast.parse(file.read_text())
    for node in _run_at_import(tree) if at_import_time else ast.walk(tree):
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


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _run_at_import(child)


def _module(name: str) -> str:
    """The file that holds a name: ``ops.native.address`` is found in ``ops.native``."""
    while name not in NAMES and "." in name:
        name = name.rpartition(".")[0]
    return name


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_one_way(file):
    mine = part_of(name_of(file))
    if mine == COMMANDS:
        return  # a command may use everything
    for name in imported(file):
        theirs = part_of(name)
        assert theirs == mine or theirs in MAY_IMPORT[mine], f"{name_of(file)} may not import {name}"


def test_no_circles():
    edges = {name_of(file): set(imported(file, at_import_time=True)) - {name_of(file)} for file in FILES}
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path, name))}"
        if name not in finished:
            for other in sorted(edges.get(name, ())):
                if not name.startswith(f"{other}."):  # a file that names its own folder gets what is there so far
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
