"""Keep the figures of a benchmark run: the machine, the versions, the commit, and each benchmark's figures.

pytest benchmarks/ --benchmark-only -s --benchmark-json run.json
python -m benchmarks.keep run.json xeon-amx-2-cores        # writes benchmarks/results/DATE-xeon-amx-2-cores.json
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import tyro

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("torch", "triton", "transformers", "open_clip_torch", "torchvision")


def keep(run: Annotated[Path, tyro.conf.Positional], machine: Annotated[str, tyro.conf.Positional], /) -> Path:
    """Write the figures of a run without times of single rounds, host names and paths.

    Args:
        run: file that --benchmark-json wrote.
        machine: short name of the machine, part of the file's name.
    """
    found = json.loads(run.read_text())
    cpu = found["machine_info"]["cpu"]
    kept = {
        "machine": f"{cpu['brand_raw']}, {cpu['count']} cores",
        "commit": found["commit_info"]["id"][:12],
        "date": found["datetime"][:10],
        "versions": {package: version(package) for package in PACKAGES},
        "benchmarks": {one["fullname"].removeprefix("benchmarks/"): _figures(one) for one in found["benchmarks"]},
    }
    path = FOLDER / f"{kept['date']}-{machine}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n")
    print(path)
    return path


def _figures(one: dict[str, Any]) -> dict[str, Any]:
    return {"seconds": _rounded(one["stats"]["median"]), **_rounded(one["extra_info"])}


def _rounded(value: Any) -> Any:
    """Numbers to four digits, in nested dictionaries."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    tyro.cli(keep)
