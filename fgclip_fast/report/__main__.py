"""``python -m fgclip_fast.report RUN [OTHER]``: what a run has learned, or two runs side by side, as one HTML file."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.logging import RichHandler
from tyro import cli
from tyro.conf import Positional

from fgclip_fast.report import compare, page


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
    written = cli(_write, args=arguments, prog="fgclip report", description=__doc__)
    print(written)


def _write(run: Positional[Path], other: Positional[Path | None] = None) -> Path:
    """Writes the report.

    Args:
        run: folder of a run; RUN/report.html is written.
        other: a second run: RUN/report-OTHER.html compares the two.
    """
    try:
        return page.write(run) if other is None else compare.write(run, other)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
