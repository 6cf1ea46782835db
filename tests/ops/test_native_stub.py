"""The stub of the extension says what the built module says: names, parameters and their types."""

import ast
import inspect
from pathlib import Path

import fgclip_fast
from fgclip_fast import _native

STUB = ast.parse((Path(fgclip_fast.__file__).parent / "_native.pyi").read_text()).body
FUNCTIONS = {node.name: node for node in STUB if isinstance(node, ast.FunctionDef)}
CLASSES = {node.name: node for node in STUB if isinstance(node, ast.ClassDef)}
CONSTANTS = {node.target.id for node in STUB if isinstance(node, ast.AnnAssign)}
ALIASES = {  # pybind11's words for what a number's parameter takes
    "typing.SupportsInt | typing.SupportsIndex": "int",
    "typing.SupportsFloat | typing.SupportsIndex": "float",
    "fgclip_fast._native.": "",
}


def parameters(function: ast.FunctionDef) -> list[str]:
    """Each parameter as ``name: type``; those after ``*`` can only be given by name."""
    positional, by_name = function.args.args, function.args.kwonlyargs
    found = [ast.unparse(parameter) for parameter in positional if parameter.arg != "self"]
    return found + ["*" for _ in by_name[:1]] + [ast.unparse(parameter) for parameter in by_name]


def built(function) -> list[str]:
    """The parameters of a built function, from the signature that pybind11 writes into its docstring."""
    signature = function.__doc__.strip()
    for theirs, ours in ALIASES.items():
        signature = signature.replace(theirs, ours)
    return parameters(ast.parse(f"def {signature}: ...").body[0])


def test_lists_every_public_name_of_the_module():
    public = {name for name in vars(_native) if not name.startswith("_")}
    listed = FUNCTIONS.keys() | CLASSES.keys() | CONSTANTS
    needs_cuda = {name for name in listed if name.endswith("_cuda")}
    assert public == (listed if _native.cuda else listed - needs_cuda)


def test_has_the_parameters_of_every_function():
    functions = {name: getattr(_native, name) for name in FUNCTIONS if hasattr(_native, name)}
    assert {name: parameters(FUNCTIONS[name]) for name in functions} == {
        name: built(function) for name, function in functions.items()
    }


def test_has_the_parameters_of_every_constructor():
    constructors = {
        name: method
        for name, node in CLASSES.items()
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name == "__init__"
    }
    assert constructors.keys() == {"RegionShape", "HardNegativeInputs", "HardNegativeSaved", "LogitsChunk", "Lse"}
    for name, method in constructors.items():
        assert parameters(method) == built(getattr(_native, name).__init__), name


def test_has_the_dtypes():
    listed = [node.target.id for node in CLASSES["Dtype"].body if isinstance(node, ast.AnnAssign)]
    assert listed == list(_native.Dtype.__members__)
    assert inspect.isclass(_native.Int32s) and hasattr(_native.Int32s, "__len__")
