"""Compiles a C++ file of this folder, with the kernels it includes, into a program that a test can run."""

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
FLAGS = ["-std=c++17", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-clobbered"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``program("faults")`` is the compiled ``faults.cpp``."""
    folder = tmp_path_factory.mktemp("cuda_on_cpu")

    @cache
    def build(name: str) -> Path:
        command = ["g++", *FLAGS, *SANITIZERS, f"-I{HERE}", f"-I{CSRC}", str(HERE / f"{name}.cpp"), "-o", folder / name]
        subprocess.run(command, check=True)
        return folder / name

    return build
