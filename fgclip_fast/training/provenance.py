"""Where a run comes from: what its report must tell beside ``config.yaml``."""

import json
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PROVENANCE = "provenance.json"
PACKAGES = ("fgclip_fast", "torch", "triton", "numpy", "tokenizers", "open_clip_torch", "simplejpeg", "pillow")


def write(run: Path, **values: Any) -> None:
    """Writes command, versions and what the caller adds (steps, processes, device, data) into the run's folder.

    A resumed run keeps the time of its first start, and lists each command.
    """
    path = run / PROVENANCE
    before = json.loads(path.read_text()) if path.is_file() else {}
    about = {
        "started": before.get("started", time.strftime("%Y-%m-%d %H:%M:%S %z")),
        "commands": [*before.get("commands", []), _command()],
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": f"{platform.system()} {platform.machine()}",
        **values,
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(about, indent=1))
    partial.replace(path)


def _command() -> str:
    """The words that started this process, as a shell takes them."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    start = f"python -m {module.name.removesuffix('.__main__')}" if module else Path(sys.argv[0]).name
    return shlex.join([*start.split(), *sys.argv[1:]])


def _versions() -> Mapping[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
