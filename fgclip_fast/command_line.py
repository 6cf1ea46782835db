"""Parse the command line of ``fgclip train`` into a config: defaults < ``--preset`` < ``--config`` < other flags.

``--resume`` without a preset or a config file starts from the config of the run that it names.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from fgclip_fast import command
from fgclip_fast.config import Config, yaml_file
from fgclip_fast.presets import B16, PRESETS

DESCRIPTION = f"""Train FG-CLIP, or go on with a run.

Without any flag: the tiny preset on the embedded data set, on a CPU, in minutes.
--preset NAME ({", ".join(PRESETS)}) and --config FILE (such as a run's config.yaml) set the defaults of all others."""


def parse(arguments: Sequence[str]) -> Config:
    """The config that a command line asks for.

    Raises:
        SystemExit: after ``--help``, or with status 2 for an unknown or malformed argument.
        ValueError: an unknown preset, a config file that is not one, or a value that the config refuses.
        OSError: the config file does not exist or cannot be read.
    """
    given, rest = _reader().parse_known_args(arguments)
    if given.preset is not None and given.preset not in PRESETS:
        raise ValueError(f"--preset: unknown preset {yaml_file.nearest(given.preset, PRESETS)}")
    base = PRESETS[given.preset or "tiny"]
    if given.init not in (None, "None") and not given.preset:
        base = replace(base, model=B16)  # the size of the weights rules, so the tiny one is not what the user asked for
    if given.config is not None:
        if not Path(given.config).is_file():
            raise FileNotFoundError(f"--config: {given.config} does not exist")
        base = yaml_file.load(Path(given.config), base)
        lies = Path(given.config).parent if given.resume == "auto" else None
    else:
        saved = None if given.preset else _config_of_resumed(given.resume, given.output)
        base = base if saved is None else yaml_file.load(saved, base)
        lies = None if saved is None else saved.parent
    # A run goes on where it lies, also if it was moved or copied since its config named a folder.
    if lies is not None and (lies / "checkpoints").is_dir():
        base = replace(base, output=str(lies))
    run = {"resume": given.resume, "output": given.output}
    base = replace(base, **{name: value for name, value in run.items() if value is not None})
    rest += [] if given.init is None else [f"--init={given.init}"]
    config = command.read(Config, "train", rest, DESCRIPTION, default=base)
    if (given.preset or "").startswith("finetune-") and config.init is None and config.resume is None:
        raise ValueError(f"init must name the weights that {given.preset} starts from, got None; pass --init FOLDER")
    return config


class _Reader(argparse.ArgumentParser):
    """A parser whose errors are exceptions, so that the command's frame prints them."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message.removeprefix("argument "))


def _reader() -> argparse.ArgumentParser:
    """Parser of the flags that decide the defaults of all others."""
    reader = _Reader(add_help=False, allow_abbrev=False)
    for flag in ("--preset", "--config", "--resume", "--output"):
        reader.add_argument(flag, type=_not_empty)
    reader.add_argument("--init")
    return reader


def _not_empty(word: str) -> str:
    if not word:
        raise argparse.ArgumentTypeError("expected one argument, got an empty word")
    return word


def _config_of_resumed(resume: str | None, output: str | None) -> Path | None:
    """Config of the run that ``--resume`` names, by a run's folder or a checkpoint in it; None if there is none yet."""
    if resume is None:
        return None
    run = Path(output or "runs/last") if resume == "auto" else Path(resume)
    # Of a checkpoint, the run's own config rather than the copy in the checkpoint, which may lie outside of a run.
    runs = [run.parents[1]] if run.parent.name == "checkpoints" else []
    files = [folder / "config.yaml" for folder in (*runs, run)]
    return next((file for file in files if file.is_file()), None)
