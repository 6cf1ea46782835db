"""``fgclip COMMAND …``, which is the same as ``python -m fgclip_fast.COMMAND …``."""

import importlib
import sys
from collections.abc import Callable, Sequence

from fgclip_fast import command
from fgclip_fast.config import yaml_file

# Command → its purpose. The command is the module of its name, or the `__main__` of the folder of its name.
COMMANDS: dict[str, dict[str, str]] = {
    "train": {
        "train": "train a model, or go on with a run",
        "report": "write an HTML page that shows what a run has learned, or compares two runs",
    },
    "use": {
        "evaluate": "measure what a model can do",
        "export": "write a model for transformers or open_clip, and compare it there",
        "embed": "rank texts for an image or a box, draw where they fit, embed folders of images",
    },
    "data": {
        "data": "make shards from your own records; index and check shards",
        "curate": "make training shards from images alone: captions, boxes, hard negatives",
        "scenes": "write the embedded data set, or look at it",
    },
    "about": {
        "info": "show versions, devices, and the function that serves each op",
    },
}


def main() -> None:
    """Run the command that the first argument names."""
    command.replace_unprintable()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    known = [word for group in COMMANDS.values() for word in group]
    if name in ("-h", "--help"):
        print(_help())
    elif name in known:
        _main_of(name)(sys.argv[2:])
    else:
        sys.exit(f"error: fgclip: unknown command {yaml_file.nearest(name, known)}; see fgclip --help")


def _help() -> str:
    lines = ["usage: fgclip COMMAND …, with --help for the arguments of a command"]
    for group, commands in COMMANDS.items():
        lines += ["", f"{group}:", *(f"  {command:10} {purpose}" for command, purpose in commands.items())]
    return "\n".join(lines)


def _main_of(name: str) -> Callable[[Sequence[str]], None]:
    module = importlib.import_module(f"fgclip_fast.{name}")
    if not hasattr(module, "main"):
        module = importlib.import_module(f"fgclip_fast.{name}.__main__")
    return module.main


if __name__ == "__main__":
    main()
