"""Builds the extension ``fgclip_fast._native`` with CMake and Ninja; everything else stands in pyproject.toml."""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """Hands the one extension to CMake and asks for the module where setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        module = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve()
        module.unlink(missing_ok=True)  # after a failed build an old module would pass for the new one
        configure = ["cmake", "--fresh", "-S", str(ROOT), "-B", str(build), "-G", "Ninja"]
        configure += [f"-DPython_EXECUTABLE={sys.executable}", f"-DFGCLIP_OUTPUT={module.parent}"]
        configure += [f"-DFGCLIP_CUDA={os.environ.get('FGCLIP_CUDA', 'auto')}", f"-DPYBIND11_DIR={_pybind11_dir()}"]
        subprocess.run(configure, check=True)
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        subprocess.run(["cmake", "--build", str(build), "--parallel", jobs], check=True)


def _pybind11_dir() -> str:
    import pybind11

    return pybind11.get_cmake_dir()


setup(ext_modules=[Extension("fgclip_fast._native", sources=[])], cmdclass={"build_ext": CMakeBuild})
