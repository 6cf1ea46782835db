"""``python -m fgclip_fast.info [--json]``: versions, devices, and the function that serves each op."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch

import fgclip_fast
from fgclip_fast import command
from fgclip_fast.ops import native

PACKAGES = (
    "torch", "triton", "torchvision", "numpy", "safetensors", "tokenizers", "open_clip_torch", "simplejpeg", "pillow",
    "nvidia-dali-cuda130", "flash-attn", "xformers", "transformers",
)  # fmt: skip
DESCRIPTION = "Show versions, devices, and the function that serves each op, with the reason where it is a slow one."


@dataclass(frozen=True, kw_only=True)
class Request:
    """The form of the answer."""

    json: bool = False
    """Print JSON, for programs and bug reports."""


def describe() -> dict[str, Any]:
    """Everything that a bug report needs, as plain values."""
    return {
        "fgclip_fast": fgclip_fast.__version__,
        "extension": _build(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "threads": {"torch": torch.get_num_threads(), "cores": os.cpu_count()},
        "devices": _devices(),
        "ops": [_op(op, device) for op, servers in sorted(native.SERVERS.items()) for device in servers],
    }


def _build() -> str:
    module = native.extension()
    if module is None:
        return "not built"
    return f"{'CPU and CUDA' if module.cuda else 'CPU only'}, {module.__file__}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    names = ["cpu"]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        names.append(f"cuda:{index} {card.name}, sm_{card.major}{card.minor}, {card.total_memory / 2**30:.0f} GiB")
    return names


def _op(op: str, device_type: str) -> dict[str, str | None]:
    """The function that serves an op on a kind of device; ``why_not_faster`` says why it is the eager reference."""
    reason = native.why_not(op, device_type)
    servers = {
        "torch": f"fgclip_fast.ops.{op}",
        "triton": f"fgclip_fast.kernels.{op}",
        "native": f"fgclip_fast._native.{op}_forward_{device_type}",
    }
    name = native.server(op, device_type) if reason is None else None
    server = servers[name] if name else f"fgclip_fast.ops.reference.{op}"
    return {"op": op, "device": device_type, "server": server, "why_not_faster": reason}


def _text(facts: dict[str, Any]) -> str:
    lines = [f"fgclip_fast {facts['fgclip_fast']}; extension: {facts['extension']}"]
    lines += [f"Python {facts['python']} on {facts['platform']}"]
    lines += [f"threads: {facts['threads']['torch']} of torch, {facts['threads']['cores']} cores", "", "packages"]
    lines += [f"  {name:20} {version or 'not installed'}" for name, version in facts["packages"].items()]
    lines += ["", "devices", *(f"  {name}" for name in facts["devices"]), "", "ops"]
    for row in facts["ops"]:
        lines.append(f"  {row['op']:20} {row['device']:5} {row['server']}")
        if row["why_not_faster"]:
            lines.append(f"  {'':26} {row['why_not_faster']}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    with command.frame("info"):
        request = command.read(Request, "info", arguments, DESCRIPTION)
        facts = describe()
        print(json.dumps(facts, indent=2) if request.json else _text(facts))


if __name__ == "__main__":
    main()
