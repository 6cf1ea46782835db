"""The report: one HTML file that shows what a run has learned, or how two runs differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["before", "write", "write_comparison"]


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


def before(run: Path, device: "torch.device | str" = "cpu") -> dict[str, dict[str, Any]]:
    """Evaluate the weights that a run started from on what it evaluates at its end; the report shows these figures.

    Args:
        run: folder of the run.
        device: where the weights are evaluated, unless the run's folder keeps the figures already.

    Returns:
        suite → figures; empty without validation data or where the weights are gone.

    Raises:
        FileNotFoundError: the folder does not exist or is not a run.
    """
    from fgclip_fast.report import files, untrained

    return untrained.figures(files.read(run), device)
