"""Each way to install the package, and the message where it is not installed. The builds are slow: -m slow."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
USE_IT = (
    "import torch; from fgclip_fast.ops import region_embedding; from fgclip_fast import kernels;"
    "print(region_embedding(torch.ones(1, 4, 2), torch.tensor([[0, 0, 1, 1.0]]), torch.tensor([0]), (2, 2)).tolist())"
)


def run(*command: object, where: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, cwd=where, env=os.environ | environment
    )


def without_nvcc(folder: Path) -> str:
    """A PATH of links to all programs but nvcc."""
    folder.mkdir()
    for name in ("g++", "gcc", "c++", "cc", "ld", "as", "ar", "ranlib", "uname", "sh", "env"):
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    return str(folder)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return copy_of_the_tree(tmp_path / "tree")


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return new_environment(tmp_path / "venv")


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A clone called fgclip_fast, and the interpreter of an environment where it is installed with -e."""
    folder = tmp_path_factory.mktemp("editable")
    clone, python = copy_of_the_tree(folder / "fgclip_fast"), new_environment(folder / "venv")
    done = pip(python, "install", "--no-deps", "-e", ".", where=clone, FGCLIP_CUDA="0")
    assert done.returncode == 0, done.stderr
    return clone, python


def copy_of_the_tree(folder: Path) -> Path:
    """The source tree as from a fresh clone."""
    files = run("git", "ls-files", "--cached", "--others", "--exclude-standard", where=ROOT).stdout.splitlines()
    for file in files:
        if (ROOT / file).is_file() or (ROOT / file).is_symlink():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file, follow_symlinks=False)
    return folder


def new_environment(folder: Path) -> Path:
    """The interpreter of an environment that sees what this one has installed, without fgclip_fast."""
    venv.create(folder, with_pip=True)
    site = next(folder.glob("lib/python*/site-packages"))
    seen = [path for path in sys.path if path.endswith("site-packages")]
    (site / "seen.pth").write_text("\n".join(seen))  # their own .pth files, an editable install's too, are not read
    return folder / "bin" / "python"


def pip(python: Path, *words: object, where: Path, **environment: str) -> subprocess.CompletedProcess:
    return run(python, "-m", "pip", *words, where=where, MAX_JOBS="2", **environment)


def test_a_source_tree_that_is_not_installed_says_what_to_do(tree):
    done = run(sys.executable, "-c", "import fgclip_fast.ops", where=tree)
    assert done.returncode != 0
    assert f"source tree {tree}, which is not installed: run `pip install -e .` there" in done.stderr


def test_every_package_is_listed_for_the_wheel():
    listed = (ROOT / "pyproject.toml").read_text()
    packages = [file.parent.relative_to(ROOT) for file in (ROOT / "fgclip_fast").rglob("__init__.py")]
    missing = [name for name in (".".join(path.parts) for path in packages) if f'"{name}",' not in listed]
    assert packages and not missing, f"pyproject.toml, tool.setuptools.packages: {missing} is missing"


def test_every_extra_that_is_named_exists():
    section = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    stated = set(re.findall(r"^([a-z0-9-]+) = \[", section, re.MULTILINE))
    texts = [ROOT / "pyproject.toml", ROOT / ".ci" / "run", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    texts += (ROOT / "fgclip_fast").rglob("*.py")
    named = {
        extra
        for text in texts
        for extras in re.findall(r"(?:fgclip_fast|[ '`]\.)\[([a-z0-9_,-]+)\]", text.read_text())
        for extra in extras.split(",")
    }
    assert len(named) > 8 and named <= stated, named - stated


def test_ci_runs_the_second_command_of_the_readme_with_more_extras():
    (command,) = (line for line in (ROOT / "README.md").read_text().splitlines() if "'.[test]'" in line)
    checked = (ROOT / ".ci" / "run").read_text().replace(".[test-all,dev]", ".[test]")
    assert all(step in checked for step in command.split(" && ")), command


@pytest.mark.slow
def test_a_wheel_works_from_another_folder_and_holds_what_it_should(tree, python, tmp_path):
    built = pip(python, "wheel", "--no-deps", "-w", tmp_path, ".", where=tree, FGCLIP_CUDA="0")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "fgclip_fast/kernels/hard_negative_loss.py" in names
    assert "fgclip_fast/py.typed" in names and "fgclip_fast/_native.pyi" in names
    assert any(name.startswith("fgclip_fast/_native.") and name.endswith(".so") for name in names)
    assert {name.split("/")[0] for name in names if not name.startswith("fgclip_fast-")} == {"fgclip_fast"}
    sources = {str(file.relative_to(tree)) for file in tree.glob("fgclip_fast/**/*.py*")}
    assert sources <= set(names), sources - set(names)
    assert pip(python, "install", "--no-deps", wheel, where=tmp_path).returncode == 0
    assert run(python, "-c", USE_IT, where=tmp_path).stdout == "[[1.0, 1.0]]\n"


@pytest.mark.slow
def test_an_editable_install_serves_every_folder(editable, tmp_path):
    clone, python = editable
    for folder in (clone.parent, clone, tmp_path):
        here = run(python, "-c", f"import fgclip_fast; fgclip_fast.load; {USE_IT}", where=folder)
        assert here.stdout == "[[1.0, 1.0]]\n", here.stderr
    (clone / "kernels" / "new.py").write_text("seen = True\n")
    assert run(python, "-c", "from fgclip_fast.kernels.new import seen", where=clone.parent).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
@pytest.mark.parametrize("place", ["the folder that contains the clone", "another folder"])
def test_type_checkers_find_an_editable_install(editable, tmp_path, checker, place):
    pytest.importorskip(checker)
    clone, python = editable
    folder = clone.parent if place.startswith("the folder") else tmp_path
    (folder / "user.py").write_text(
        "import fgclip_fast\nreveal_type(fgclip_fast.load)\nreveal_type(fgclip_fast.ops.region_embedding)\n"
    )
    interpreter = ("--python-executable", python) if checker == "mypy" else ("--pythonpath", python)
    checked = run(sys.executable, "-m", checker, *interpreter, "user.py", where=folder)
    load, op = (line for line in checked.stdout.splitlines() if "user.py:" in line)
    assert load.endswith('FGCLIP"') and op.endswith('Tensor"'), checked.stdout + checked.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [["-e", "."], ["."]], ids=["editable", "plain"])
def test_pip_install_works_outside_the_tree(tree, python, tmp_path, words):
    done = pip(python, "install", "--no-deps", *words, where=tree, FGCLIP_CUDA="0")
    assert done.returncode == 0, done.stderr
    assert run(python, "-c", USE_IT, where=tmp_path).stdout == "[[1.0, 1.0]]\n"
    inside = run(python, "-c", USE_IT, where=tree)
    if "-e" in words:
        assert inside.stdout == "[[1.0, 1.0]]\n", inside.stderr
    else:  # the folder hides the installed package
        assert "run `pip install -e .` there, or start Python in another folder" in inside.stderr


@pytest.mark.slow
def test_the_sdist_holds_the_sources_of_the_build(tree, tmp_path):
    build = "from setuptools.build_meta import build_sdist; print(build_sdist('out'))"
    done = run(sys.executable, "-c", build, where=tree)
    assert done.returncode == 0, done.stderr
    (archive,) = (tree / "out").glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    for folder, pattern in (("csrc", "**/*.*"), ("fgclip_fast/kernels", "*.py"), ("fgclip_fast", "**/*.py")):
        sources = {str(file.relative_to(tree)) for file in (tree / folder).glob(pattern)}
        assert sources and sources <= names, sources - names
    assert {"CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE"} <= names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "succeeds", "said"),
    [("auto", True, "CPU-only build"), ("1", False, "asks for the CUDA build, but no nvcc is on PATH")],
)
def test_without_nvcc(tree, python, tmp_path, wanted, succeeds, said):
    environment = {"PATH": without_nvcc(tmp_path / "bin"), "FGCLIP_CUDA": wanted, "CUDACXX": ""}
    done = pip(python, "install", "-v", "--no-deps", ".", where=tree, **environment)
    assert (done.returncode == 0) == succeeds, done.stdout + done.stderr
    assert said in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")
def test_with_nvcc_the_extension_has_cuda_and_imports_without_a_driver(tree, python, tmp_path):
    words = ("install", "--no-deps", ".")
    done = pip(python, *words, where=tree, FGCLIP_CUDA="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert run(python, "-c", "import fgclip_fast._native as n; print(n.cuda)", where=tmp_path).stdout == "True\n"
