"""The documentation is true of the repository: drawings, links, files, flags and names in it exist."""

import ast
import contextlib
import importlib
import io
import os
import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SOURCES = [
    file
    for folder in ("fgclip_fast", "kernels", "csrc", "tests", "benchmarks", "examples", "docs")
    for file in sorted((ROOT / folder).rglob("*"))
    if file.suffix in (".py", ".cpp", ".h", ".cu", ".cuh", ".inc", ".md") and file != Path(__file__)
]


PACKAGES = ["", ".ops", ".inputs", ".model", ".training", ".evaluation"]


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def prose_of(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """Identifiers that GitHub and MkDocs give to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def test_the_drawing_of_the_floors_is_that_of_the_imports():
    drawn = runpy.run_path(str(ROOT / "docs" / "floors.py"))["draw"]()
    assert (ROOT / "docs" / "floors.svg").read_text() == drawn, "run `python docs/floors.py`"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if target.startswith(("http", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name_of(page)} links to {target}, which does not exist"
        assert not anchor or anchor in anchors_of(file), f"{name_of(page)} links to {target}: no such heading"


def test_the_readme_names_every_page():
    shown_elsewhere = {"index.md", "examples.md", "contributing.md", "changelog.md"}
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - shown_elsewhere
    assert pages == set(re.findall(r"\(docs/([\w-]+\.md)\)", (ROOT / "README.md").read_text()))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page):
    for name in re.findall(r"`([\w./-]+/[\w.-]*\.(?:py|cpp|h|cu|cuh|inc|js|css))`", prose_of(page)):
        if "X." in name:  # a name that the reader is to choose
            continue
        places = ROOT / name, ROOT / "fgclip_fast" / name, ROOT / "csrc" / name
        assert any(place.exists() for place in places), f"{name_of(page)} names {name}, which does not exist"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_beside_files_are_defined_in_them(page):
    steps = re.findall(r"(?m)^\d+\. `([\w/]+\.py)`, `([\w.]+)`:", prose_of(page))
    for name, defined in [*steps, *re.findall(r"`([\w/]+\.py)`'s `(\w+)`", prose_of(page))]:
        file = next(place for place in (ROOT / name, ROOT / "fgclip_fast" / name) if place.exists())
        for part in defined.split("."):
            assert re.search(rf"^\s*(def|class) {part}\b", file.read_text(), re.MULTILINE), f"{defined} in {name}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_prose_is_wrapped_at_120_columns(page):
    for line in prose_of(page).splitlines():
        is_free = line.lstrip().startswith(("|", "#", "!", "[")) or "](http" in line
        assert len(line) <= 120 or is_free, f"{name_of(page)}: {line}"


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_no_file_cites_a_document_that_a_cloner_does_not_have(file):
    cited = re.search(r"(?i)design section|design\.md|spec section|\bspec,? T?\d|\bspec of", file.read_text())
    assert cited is None, f"{name_of(file)} says {cited.group()!r}; state the fact, or point to docs/"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_stands_on_an_api_page(package):
    module = importlib.import_module(f"fgclip_fast{package}")
    page = (ROOT / "docs" / "api" / f"{package.removeprefix('.') or 'fgclip_fast'}.md").read_text()
    shown = re.findall(r"^::: (fgclip_fast[\w.]*)$", page, flags=re.MULTILINE)
    packages = {name for name in module.__all__ if f".{name}" in PACKAGES}  # each has a page of its own
    assert {name.rpartition(".")[2] for name in shown} == set(module.__all__) - packages
    for name in shown:
        assert named(name) is getattr(module, name.rpartition(".")[2]), f"{name} is not what the package offers"


def named(dotted: str) -> object:
    """The module, or the object in one, of a dotted name."""
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError:
        home, _, name = dotted.rpartition(".")
        return getattr(importlib.import_module(home), name)


def test_every_public_name_says_what_it_is():
    for package in PACKAGES:
        module = importlib.import_module(f"fgclip_fast{package}")
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, ModuleType | type) or callable(value):
                assert value.__doc__, f"{module.__name__}.{name} has no docstring"


_PARTS = "import|index|check|images|captions|phrases|regions|negatives|filter|shards"  # of commands that have several
COMMANDS = {
    (match[1], flag)
    for page in PAGES
    for line in re.findall(r"^.*fgclip_fast\.\w+ .*$", page.read_text(), flags=re.MULTILINE)
    for match in [re.search(rf"-m fgclip_fast\.(\w+(?: (?:{_PARTS})\b)?)", line)]
    if match
    for flag in re.findall(r"(?<=\s)--[a-z][\w.-]*", line[match.end() :].partition("#")[0])
}


@cache
def help_of(command: str) -> str:
    """What ``python -m fgclip_fast.COMMAND --help`` prints."""
    name, *words = command.split()
    folder = (ROOT / "fgclip_fast" / name).is_dir()
    main = importlib.import_module(f"fgclip_fast.{name}.__main__" if folder else f"fgclip_fast.{name}").main
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue()


@pytest.mark.parametrize(("command", "flag"), sorted(COMMANDS))
def test_flags_of_documented_commands_exist(command, flag):
    assert re.search(rf"{re.escape(flag)}\b", help_of(command)), f"{command} has no {flag}"


def test_messages_that_troubleshooting_quotes_exist():
    spoken = "\n".join(
        node.value
        for file in (ROOT / "fgclip_fast").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    rows = re.findall(r"^\| ([^|]*`[^|]*) \|", (ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.MULTILINE)
    for quoted in (span for row in rows for span in re.findall(r"`([^`]+)`", row)):
        for part in quoted.split("…"):
            assert part.strip() in spoken, f"no message says {part.strip()!r}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    for package in PACKAGES:
        page = (tmp_path / "api" / (package.removeprefix(".") or "fgclip_fast") / "index.html").read_text()
        for name in importlib.import_module(f"fgclip_fast{package}").__all__:
            assert f".{name}" in PACKAGES or re.search(rf'id="fgclip_fast[\w.]*\b{name}"', page), name
