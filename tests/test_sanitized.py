"""The C++ ops under the address and undefined-behaviour sanitizers: their tests, with the extension built anew."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLAGS = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
OPS = (
    "region_embedding",
    "contrastive_loss",
    "hard_negative_loss",
    "add_layer_norm",
    "activation_linear",
    "prefix_tree",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A copy of the package whose extension stops at the first fault."""
    pytest.importorskip("pybind11", reason="the build needs pybind11, cmake and ninja")
    copy = tmp_path_factory.mktemp("sanitized") / "clone"
    left_out = shutil.ignore_patterns(".git", "_native*.so", "build", "runs", "__pycache__", ".*_cache", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=left_out)
    environment = {**os.environ, "CXXFLAGS": FLAGS, "LDFLAGS": FLAGS, "FGCLIP_CUDA": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return copy


def library(name):
    """The path of a library that must be loaded before the interpreter."""
    return subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("op", OPS)
def test_an_op_has_no_fault(built, op):
    environment = {**os.environ, "LD_PRELOAD": " ".join(map(library, ("libasan.so", "libstdc++.so")))}
    environment["PYTHONPATH"] = str(built)
    environment["ASAN_OPTIONS"] = "detect_leaks=0"  # CPython leaks at its end
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", f"tests/ops/test_{op}.py"]
    done = subprocess.run(command, cwd=built, env=environment, capture_output=True, text=True)
    told = done.stdout + done.stderr
    assert done.returncode == 0 and "Sanitizer" not in told and "runtime error" not in told, told[-4000:]
    loaded = subprocess.run(["ldd", next((built / "fgclip_fast").glob("_native*.so"))], capture_output=True, text=True)
    assert "libasan" in loaded.stdout
