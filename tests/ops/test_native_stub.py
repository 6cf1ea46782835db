"""The stub of the extension says what the built module holds: its names, and the parameters of its functions."""

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest

from fgclip_fast.ops import native

STUB = ast.parse((Path(__file__).parents[2] / "fgclip_fast" / "_native.pyi").read_text())
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


@pytest.fixture
def module() -> ModuleType:
    extension = native.extension()
    assert extension is not None
    return extension


def parameters_of(function: ast.FunctionDef) -> list[str]:
    names = [argument.arg for argument in [*function.args.args, *function.args.kwonlyargs]]
    return [name for name in names if name != "self"]


def documented_parameters(doc: str) -> list[str]:
    """Names in the signature that pybind11 writes as the first line of a docstring."""
    return [name for name in re.findall(r"[(,] \**(\w+): ", doc.splitlines()[0].replace("(", "( ")) if name != "self"]


def test_the_stub_has_the_names_of_the_module(module):
    variables = {node.target.id for node in STUB.body if isinstance(node, ast.AnnAssign)}
    stubbed = {*FUNCTIONS, *CLASSES, *variables}
    if not module.cuda:
        stubbed -= {name for name in stubbed if name.endswith("_cuda")}
    assert stubbed == {name for name in dir(module) if not name.startswith("__")}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_parameters_of_the_stub(module, name):
    if name.endswith("_cuda") and not module.cuda:
        pytest.skip("built without CUDA")
    assert parameters_of(FUNCTIONS[name]) == documented_parameters(getattr(module, name).__doc__)


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in ("Dtype", "Int32s")])
def test_classes_are_made_from_the_parameters_of_the_stub(module, name):
    (init,) = (node for node in CLASSES[name].body if isinstance(node, ast.FunctionDef))
    assert parameters_of(init) == documented_parameters(getattr(module, name).__init__.__doc__)


def test_dtypes_are_those_of_the_stub(module):
    stubbed = {node.target.id for node in CLASSES["Dtype"].body if isinstance(node, ast.AnnAssign)}
    assert stubbed == set(module.Dtype.__members__)
