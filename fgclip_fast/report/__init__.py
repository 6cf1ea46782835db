"""The report: one HTML file that shows what a run has learned, or how two runs differ."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["write", "write_comparison"]


def write(run: Path, device: "torch.device | str" = "cpu") -> Path:
    """Write ``report.html`` into a run's folder.

    Args:
        run: the run's folder.
        device: where the run's model embeds its validation images.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: the folder does not exist or is not a run.
        ValueError: its config or weights are not of this version.
    """
    from fgclip_fast.report import page

    return page.write(run, device)


def write_comparison(run: Path, other: Path, device: "torch.device | str" = "cpu") -> Path:
    """Write ``report-OTHER.html`` into a run's folder: both models on the validation images of that run.

    Args:
        run: folder of the first run.
        other: folder of the second run.
        device: where the two models embed the validation images.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: one of the folders does not exist or is not a run.
        ValueError: a config or weights are not of this version.
    """
    from fgclip_fast.report import compare

    return compare.write(run, other, device)
