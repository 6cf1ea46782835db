"""Figures as rows of a Markdown table and of a LaTeX table."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MAIN = (
    "top1", "text", "image", "group", "top1_mean_of_kinds", "top1_mean_of_classes", "miou", "ap50_novel", "ap50_base",
    "image_to_text_r@1", "text_to_image_r@1", "hard_negative_top1", "region_top1_in_image", "phrase_top1_in_image",
    "short_image_to_text_r@1", "short_text_to_image_r@1", "long_image_to_text_r@1", "long_text_to_image_r@1",
)  # fmt: skip
"""Figures that stand in the rows; all others are in the JSON alone."""
OPEN = "not yet reproduced here"


class Cell(NamedTuple):
    """One figure with what stands beside it; shares in [0, 1], None where there is none."""

    suite: str
    figure: str
    value: float
    against: Mapping[str, Any] | None
    published: float | None
    reproduced: bool


def cells(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[Cell]:
    """The main figures of ``evaluation.json``, in its order."""
    for suite, f in figures.items():
        published = f.get("published", {})
        for name in MAIN:
            if isinstance(value := f.get(name), float) and math.isfinite(value):
                against = f.get("against", {}).get("differences", {}).get(name)
                given = published.get("figures", {}).get(name)
                yield Cell(suite, name, value, against, given, bool(published.get("reproduced", {}).get(name)))


def published(cell: Cell) -> str:
    """The published share and whether it was reproduced, as people read it; "" where there is none."""
    if cell.published is None:
        return ""
    return f"{100 * cell.published:.1f} ({'reproduced' if cell.reproduced else OPEN})"


def markdown(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table, with a row for each main figure: in percent, with difference, published figure and protocol."""
    rows = ["| suite | figure | % | against | difference (95 %) | published | asked | protocol |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for cell in cells(figures):
        of = figures[cell.suite].get("of", {})
        given = (
            cell.suite, cell.figure, f"{100 * cell.value:.1f}", _against(cell), _difference(cell), published(cell),
            of.get("asked", ""), of.get("protocol", ""),
        )  # fmt: skip
        rows.append("| " + " | ".join(str(one).replace("|", "\\|") for one in given) + " |")
    return "\n".join(rows) + "\n"


def latex(name: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """LaTeX rows: a comment that names the columns, then the model, the one compared with, and the published figures.

    Args:
        name: of the model.
        figures: as ``evaluation.json`` holds them.
    """
    found = list(cells(figures))
    rows = [f"% {' & '.join(['model', *(f'{cell.suite} {cell.figure}' for cell in found)])}"]
    rows += [f"% {suite}: {f['of']['protocol']}" for suite, f in figures.items() if f.get("of", {}).get("protocol")]
    rows.append(_row(_escaped(name), [100 * cell.value for cell in found]))
    if any(cell.against for cell in found):
        others = [100 * cell.against["against"] if cell.against else None for cell in found]
        weights = next(f["against"]["weights"] for f in figures.values() if "against" in f)
        rows.append(_row(_escaped(weights), others))
    if any(cell.published is not None for cell in found):
        models = {f["published"]["model"] for f in figures.values() if "published" in f}
        rows.append(f"% published{'' if all(c.reproduced for c in found if c.published) else f', {OPEN}'}:")
        given = [None if cell.published is None else 100 * cell.published for cell in found]
        rows.append(_row(_escaped(", ".join(sorted(models))), given))
    return "\n".join(rows) + "\n"


def _row(name: str, values: list[float | None]) -> str:
    return " & ".join([name, *("--" if value is None else f"{value:.1f}" for value in values)]) + r" \\"


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "_&%#$" else c for c in text.replace("\\", "/"))


def _against(cell: Cell) -> str:
    return "" if cell.against is None else f"{100 * cell.against['against']:.1f}"


def _difference(cell: Cell) -> str:
    if cell.against is None:
        return ""
    low, high = (100 * end for end in cell.against["interval"])
    return f"{100 * cell.against['difference']:+.1f} ({low:+.1f} … {high:+.1f})"
