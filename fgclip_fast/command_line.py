"""From words to a config: defaults < ``--preset`` < ``--config`` < flags, and a config to a file and back.

``--resume`` without either starts from the config of the run that it names. Below that: what several commands ask of a
device and of a file to write before they begin, since hours later is too late to be told.
"""

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from fgclip_fast.config import Config
from fgclip_fast.presets import PRESETS

T = TypeVar("T")


def parse(arguments: Sequence[str]) -> Config:
    """The config that the words of a command line ask for.

    Raises:
        SystemExit: after ``--help``, or with a message that names the wrong word.
    """
    import tyro  # not needed by those who call train() from Python

    chosen, rest = _read_first(list(arguments))
    try:
        base = PRESETS[chosen["preset"]] if "preset" in chosen else PRESETS["tiny"]
        saved = chosen.get("config") or (None if "preset" in chosen else _resumed(rest))
        if saved:
            base = load(Path(saved), base)
    except KeyError:
        sys.exit(f"--preset: unknown preset {_nearest(chosen['preset'], PRESETS)}")
    except (OSError, ValueError) as error:
        sys.exit(f"--config: {error}")
    description = (
        "Train FG-CLIP. Without any flag: the tiny preset on the embedded data set, on a CPU, in minutes.\n"
        f"Read before the other flags: --preset {{{','.join(PRESETS)}}} and --config FILE (a run's config.yaml)."
    )
    try:
        return tyro.cli(Config, default=base, args=rest, prog="fgclip train", description=description)
    except ValueError as error:  # a value that the dataclass refuses
        sys.exit(str(error))


def save(config: Config, path: Path) -> None:
    """Writes a config as YAML; it alone repeats the run."""
    path.write_text(yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False))


def load(path: Path, base: Config | None = None) -> Config:
    """Reads a config file; what it leaves out is as in ``base``.

    Raises:
        OSError: no such file.
        ValueError: not YAML of a config; an unknown key is named, with the nearest known one.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"a mapping of fields was expected, got {type(values).__name__}")
        return _merge(base or Config(), values)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None  # its own has five lines
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def device(wanted: str) -> torch.device:
    """The device of a word: ``cpu``, ``cuda``, ``cuda:N``, or ``auto``, which is a GPU where there is one.

    Raises:
        ValueError: a GPU is asked for that torch does not see.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    place = torch.device(("cuda" if gpus else "cpu") if wanted == "auto" else wanted)
    if place.type == "cuda" and (place.index or 0) >= gpus:
        raise ValueError(
            f"device: {wanted} was asked for, but torch sees {gpus} GPUs; see `python -m fgclip_fast.info`"
        )
    return place


def check_output(name: str, path: Path) -> None:
    """Refuses a file to write that is a folder, or lies in none.

    Raises:
        ValueError: the message names the argument ``name``.
    """
    if path.is_dir():
        raise ValueError(f"{name} must be a file, got the folder {path}")
    if not path.parent.is_dir():
        raise ValueError(f"{name} must lie in a folder that is there, got {path}")


def _read_first(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Takes ``--preset X`` and ``--config X`` (or with ``=``) out of the words."""
    chosen: dict[str, str] = {}
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in ("preset", "config"):
            chosen[name] = value if equals else next(words, "")
            if not chosen[name] or chosen[name].startswith("--"):
                expected = "the name of a preset" if name == "preset" else "a file"
                sys.exit(f"--{name}: {expected} was expected, got {chosen[name] or 'nothing'}")
        else:
            rest.append(word)
    return chosen, rest


def _resumed(words: list[str]) -> str | None:
    """The config of the run that ``--resume`` names: going on with a run means going on as it was."""
    given = dict(zip(words, [*words[1:], ""], strict=False)) | dict(w.split("=", 1) for w in words if "=" in w)
    if "--resume" not in given:
        return None
    run = Path(given.get("--output", "runs/last") if given["--resume"] == "auto" else given["--resume"])
    places = run, *run.parents[1:2]  # of a run, and of a checkpoint in it
    return next((str(place / "config.yaml") for place in places if (place / "config.yaml").is_file()), None)


def _merge(base: T, values: dict[str, Any], where: str = "") -> T:
    hints = typing.get_type_hints(type(base))
    changed: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            raise ValueError(f"{where}unknown key {_nearest(key, hints)}")
        current = getattr(base, key)
        if dataclasses.is_dataclass(current) and isinstance(value, dict):
            changed[key] = _merge(current, value, f"{where}{key}: ")
        else:
            changed[key] = _converted(value, hints[key], f"{where}{key}")
    return dataclasses.replace(base, **changed)  # type: ignore[type-var]


def _converted(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the field's type; YAML knows no tuples, and reads 1e-6 as a string and 1 as an int."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        return _converted(value, next(o for o in options if o is not type(None)), where)
    if origin is tuple and isinstance(value, list) and len(value) == len(options):
        return tuple(_converted(v, option, where) for v, option in zip(value, options, strict=True))
    if origin is typing.Literal and value in options:
        return value
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    wanted = " or ".join(map(repr, options)) if origin is typing.Literal else getattr(hint, "__name__", str(hint))
    raise ValueError(f"{where} must be {wanted}, got {value!r}")


def _nearest(key: str, known: typing.Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.0)
    return f"{key!r}; the nearest is {near[0]!r}" if near else f"{key!r}; known are {', '.join(names)}"


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down: YAML's own tuples are unsafe to load."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
