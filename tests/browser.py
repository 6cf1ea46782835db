"""Opens a page in headless Chromium, where one is installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-extensions", "--disable-component-update", "--virtual-time-budget=20000",
)  # fmt: skip

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt-get install chromium")


def dom_after(page: Path, script: str, folder: Path, width: int = 1280) -> str:
    """The page's HTML after a script of the test has run in it; the page's own policy would not let it."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    driven = folder / "driven.html"
    driven.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    return dom(driven, folder, width)


def dom(page: Path, folder: Path, width: int = 1280) -> str:
    """The page's HTML after its own script has run."""
    command = [
        str(CHROMIUM),
        *FLAGS,
        f"--window-size={width},900",
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
    ]
    return subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=400, check=True).stdout
