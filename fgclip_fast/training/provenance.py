"""Provenance of a run: commands, versions and machine, for its report."""

import json
import platform
import shlex
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from fgclip_fast.files.whole_file import write_json

PROVENANCE = "provenance.json"
PACKAGES = ("fgclip_fast", "torch", "triton", "numpy", "tokenizers", "open_clip_torch", "simplejpeg", "pillow")


def write(run: Path, **values: Any) -> None:
    """Write command, versions, machine and the caller's ``values`` to the run's folder.

    A resumed run keeps the time of its first start, and lists the command of each start.
    """
    path = run / PROVENANCE
    before = json.loads(path.read_text()) if path.is_file() else {}
    about = {
        "started": before.get("started", time.strftime("%Y-%m-%d %H:%M:%S %z")),
        "commands": [*before.get("commands", []), _command()],
        "versions": {"python": platform.python_version(), **versions()},
        "machine": f"{platform.system()} {platform.machine()}",
        **values,
    }
    write_json(path, about)


def versions() -> dict[str, str]:
    """Versions of this package and of those that it computes with, where installed."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _command() -> str:
    """The command that started this process, quoted for a shell."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    start = f"python -m {module.name.removesuffix('.__main__')}" if module else Path(sys.argv[0]).name
    return shlex.join([*start.split(), *sys.argv[1:]])
