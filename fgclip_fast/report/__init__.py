"""One HTML file that tells what a run has learned; ``write(run)`` makes it."""

from fgclip_fast.report.page import write

__all__ = ["write"]
