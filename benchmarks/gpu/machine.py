"""The card, its driver and clocks, and the versions of all that is measured."""

import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.case import Case, Figures, NotHereError
from benchmarks.gpu.sizes import Sizes
from fgclip_fast.ops import native

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "triton", "numpy", "torchvision", "transformers", "open_clip_torch", "flash-attn", "xformers",
            "liger-kernel", "siglip-kernel", "nvidia-dali-cuda130")  # fmt: skip
ASKED = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem", "power.limit",
         "temperature.gpu", "mig.mode.current", "clocks_event_reasons.active")  # fmt: skip


def cases(sizes: Sizes) -> Iterator[Case]:
    """Facts, none of which is a measurement."""
    yield Case("host", lambda: {"value": f"{platform.platform()}, Python {platform.python_version()}"})
    yield Case("commit", _commit)
    yield Case("card", lambda: _card(sizes))
    for question in ASKED:
        yield Case(question, lambda question=question: {"value": asked(sizes, question)})
    for package in PACKAGES:
        yield Case(package, partial(_version, package))
    yield Case("CUDA of torch", lambda: {"value": str(torch.version.cuda)})
    for op in native.SERVERS:
        yield Case(op, partial(_server, op, sizes))


def _server(op: str, sizes: Sizes) -> Figures:
    kind = sizes.device.type if sizes.device.type in native.SERVERS[op] else "cpu"
    return {"value": native.why_not(op, kind) or f"{native.SERVERS[op][kind]} on {kind}"}


def _commit() -> Figures:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return {"value": git("rev-parse", "HEAD") + changed}
    except (OSError, subprocess.CalledProcessError):
        raise NotHereError("not a git clone") from None


def _card(sizes: Sizes) -> Figures:
    if not sizes.on_gpu:
        raise NotHereError("no GPU")
    p = torch.cuda.get_device_properties(sizes.device)
    memory, l2 = p.total_memory / 2**30, p.L2_cache_size / 2**20
    return {"value": f"{p.name}, sm_{p.major}{p.minor}, {p.multi_processor_count} multiprocessors, "
                     f"{memory:.0f} GiB, L2 {l2:.0f} MiB"}  # fmt: skip


def asked(sizes: Sizes, question: str) -> str:
    """The answer of nvidia-smi to one of its ``--query-gpu`` fields, for the card that torch uses."""
    if not sizes.on_gpu or shutil.which("nvidia-smi") is None:
        raise NotHereError("nvidia-smi is not on PATH" if sizes.on_gpu else "no GPU")
    card = f"--id=GPU-{torch.cuda.get_device_properties(sizes.device).uuid}"
    command = ["nvidia-smi", card, f"--query-gpu={question}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    if done.returncode:
        raise NotHereError((done.stdout or done.stderr).strip())
    return done.stdout.strip()


def _version(package: str) -> Figures:
    try:
        return {"value": importlib.metadata.version(package)}
    except importlib.metadata.PackageNotFoundError:
        raise NotHereError("not installed") from None
