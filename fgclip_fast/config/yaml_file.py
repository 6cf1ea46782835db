"""Read and write a config as a YAML file."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fgclip_fast.config import Config
from fgclip_fast.files.whole_file import write_whole

T = TypeVar("T")


def save(config: Config, path: Path) -> None:
    """Write a config as YAML; the file alone repeats the run."""
    values = json.loads(json.dumps(asdict(config)))  # tuples become lists: YAML has no tuples
    write_whole(path, yaml.safe_dump(values, sort_keys=False))


def load(path: Path, base: Config | None = None) -> Config:
    """Read a config file; fields that it leaves out keep their value in ``base``.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: the file is not the YAML of a config. The message names the file, the field and the value; for an
            unknown field, also the nearest known one.
    """
    values = mapping(path)
    try:
        return validated(Config, _merged(asdict(base or Config()), _of_today(values)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def mapping(path: Path) -> dict[Any, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: it is no YAML, or holds something else.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a config must be a mapping of fields, got {type(values).__name__}")
    return values


def validated(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass of values as YAML gives them.

    Raises:
        ValueError: a value has a wrong type, or breaks a rule of its field.
    """
    import pydantic  # slow to import, and not needed by those who call train() from Python

    try:
        # As JSON, since pydantic's strict mode then takes a list for a tuple and 1 for 1.0, but not true for 1.
        return pydantic.TypeAdapter(kind).validate_json(json.dumps(values, default=str), strict=True)
    except pydantic.ValidationError as error:
        raise ValueError(_first_fault(error)) from None


def _of_today(values: dict[Any, Any]) -> dict[Any, Any]:
    """Fields of older versions under today's names."""
    model = values.get("model")
    if isinstance(model, dict) and "activation_checkpointing" in model:
        whole = {True: "blocks", False: "none"}
        model = {"recompute": whole.get(model["activation_checkpointing"]), **model}
        values = {**values, "model": {name: x for name, x in model.items() if name != "activation_checkpointing"}}
    return values


def nearest(word: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the word, and the known one that is most like it."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.0)
    return f"{word!r}; the nearest is {near[0]!r}"


class _Loader(yaml.SafeLoader):
    """A YAML loader that reads 1e-6 as a number, as YAML 1.2 does; PyYAML's own wants a point: 1.0e-6."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def _merged(base: dict[str, Any], values: dict[Any, Any], path: str = "") -> dict[str, Any]:
    merged = dict(base)
    for key, value in values.items():
        if key not in base:
            raise ValueError(f"unknown key {nearest(f'{path}{key}', [f'{path}{name}' for name in base])}")
        both = isinstance(base[key], dict) and isinstance(value, dict)
        merged[key] = _merged(base[key], value, f"{path}{key}.") if both else value
    return merged


def _first_fault(error: Any) -> str:
    """The first of pydantic's faults in our form; a rule of the config itself has it already."""
    fault = error.errors()[0]
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    field = ".".join(map(str, fault["loc"]))
    return f"{field} {fault['msg'].replace('Input should be', 'must be')}, got {fault['input']!r}"
