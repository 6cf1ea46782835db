"""``fgclip COMMAND …``: the same as ``python -m fgclip_fast.COMMAND …``."""

import importlib
import sys

COMMANDS = {
    "train": "train, or go on with a run",
    "evaluate": "what a model can do: a table and JSON",
    "embed": "rank texts for a picture or a box, draw where they fit, embed folders",
    "report": "what a run has learned, or two runs side by side, as one HTML file",
    "info": "versions, devices, and which function serves each op",
    "data": "shards from your own records; index and check shards",
    "scenes": "write or look at the embedded data set",
}


def main() -> None:
    """Hands the words after the command's name to it."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in COMMANDS:
        print("usage: fgclip COMMAND …; COMMAND --help says more\n")
        print("\n".join(f"  {command:10} {purpose}" for command, purpose in COMMANDS.items()))
        sys.exit(0 if name in ("-h", "--help") else f"\nunknown command {name!r}")
    in_folder = name in ("data", "report", "scenes")
    module = importlib.import_module(f"fgclip_fast.{name}.__main__" if in_folder else f"fgclip_fast.{name}")
    module.main(sys.argv[2:])


if __name__ == "__main__":
    main()
