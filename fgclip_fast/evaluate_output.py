"""The files that ``fgclip evaluate`` writes: figures as JSON, and as rows for Markdown and LaTeX."""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fgclip_fast import figures_rows
from fgclip_fast.figures_file import FIGURES
from fgclip_fast.files.whole_file import write_json, write_whole

log = logging.getLogger("fgclip_fast")


def write(
    figures: dict[str, dict[str, Any]], run: Path, output: Path | None, *, whole: bool, replace: Callable[[], bool]
) -> None:
    """Write figures where nothing else is lost by it, with rows for Markdown and LaTeX beside them, and say where.

    Args:
        figures: name → figures, described.
        run: a run, or a folder or file of weights.
        output: a file for the figures, which keeps those of other suites; None is the run's own or one in
            ``evaluations/``, and none for weights that are not a run's.
        whole: whether they are all figures of the run, which replace its file.
        replace: tells whether they may stand in the run's file, if they are of the data of those before them.
    """
    if output is not None:
        path, figures = output, read(output) | figures
    elif not (run / "config.yaml").is_file():
        log.info("evaluate: nothing is written into a folder of weights; pass --output FILE to keep the figures")
        return
    elif replace() and (whole or _of_same_data(read(run / FIGURES), figures)):
        path = run / FIGURES
        # A suite replaces its own figures in the file; the whole evaluation of a run replaces the file.
        figures = figures if whole else read(path) | figures
    else:
        path = run / "evaluations" / f"{datetime.now():%Y%m%d-%H%M%S}.json"
        path.parent.mkdir(exist_ok=True)
    write_json(path, figures)
    write_whole(path.with_suffix(".md"), figures_rows.markdown(figures))
    write_whole(path.with_suffix(".tex"), figures_rows.latex(run.resolve().name, figures))
    log.info("figures written to %s, and as rows to .md and .tex beside it", path)


def read(path: Path) -> dict[str, Any]:
    """Read figures of other suites, which stay in the file; ``{}`` if there is none.

    Raises:
        ValueError: the file holds something else.
    """
    if not path.exists():
        return {}
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        figures = None
    if not isinstance(figures, dict):
        raise ValueError(f"output must be a new file, or a file of figures, got {path}")
    return figures


def _of_same_data(before: Mapping[str, Any], figures: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(_content(before.get(name, {})) in ({}, _content(own)) for name, own in figures.items())


def _content(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The data of figures without their path, which may be written in several ways; empty if unknown."""
    data = figures.get("of", {}).get("data", {})
    return {name: value for name, value in data.items() if name not in ("file", "files")}
