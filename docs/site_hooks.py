"""Hooks of the documentation site: pages that show a file from the root of the repository; roles in docstrings."""

import re
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parents[1]
SHOWN = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
LINKS = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace the body of a page in SHOWN by its file, whose links start from the root of the repository."""
    if page.file.src_uri not in SHOWN:
        return markdown
    text = (ROOT / SHOWN[page.file.src_uri]).read_text()
    return re.sub(r"\]\(([^)#:\s]+)(#[^)]*)?\)", lambda link: f"]({_from_docs(link[1])}{link[2] or ''})", text)


def _from_docs(target: str) -> str:
    if target.startswith("examples/"):
        return "examples.md"
    return LINKS.get(target, target.removeprefix("docs/"))


class Roles(griffe.Extension):
    """Show ``:func:`name``` in a docstring as code; editors follow the role, Markdown does not know it."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", obj.docstring.value)
