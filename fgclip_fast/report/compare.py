"""The page that compares two runs on the same images, questions and phrases."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from fgclip_fast.evaluation.comparison import RESAMPLES, Difference, difference
from fgclip_fast.report import accuracy, charts, gallery, model_views, outcomes, page, sections
from fgclip_fast.report.charts import Line, Mark
from fgclip_fast.report.files import RunFiles, read
from fgclip_fast.report.html import duration, escape, facts, paragraph, percent, section, table
from fgclip_fast.report.model_views import ModelViews

CARDS = 8
"""Questions on which the runs disagree that are shown, at most."""

Two = tuple[RunFiles, RunFiles]
Names = tuple[str, str]


def write(run: Path, other: Path, device: torch.device | str) -> Path:
    """Write ``report-OTHER.html``; see :func:`fgclip_fast.report.write_comparison`."""
    files = read(run), read(other)
    names = _names(files)
    views = _views(files, device)
    differences = _differences(files, views) if views else {}
    parts = [
        _head(files, names, differences),
        _settings(files, names),
        _accuracy(differences, names),
        page.explore_section(list(zip(names, views, strict=True))) if views else _no_images(files),
        _disagreements(views, names) if views else "",
        _training(files, names),
        *(sections.reproduction(f).replace('"reproduce"', f'"reproduce-{i}"') for i, f in enumerate(files)),
    ]
    return page.save(run / f"report-{files[1].name}.html", f"{names[0]} and {names[1]}", parts)


def _names(files: Two) -> Names:
    first, second = (f.name for f in files)
    return (first, second) if first != second else (str(files[0].path), str(files[1].path))


def _views(files: Two, device: torch.device | str) -> tuple[ModelViews, ModelViews] | None:
    """Show both models the images and phrases of the first run; None if one has no weights or there are no images."""
    first = model_views.of_run(files[0], device)
    if first is None or files[1].weights is None:
        return None
    images = [view.image for view in first.views]
    return first, model_views.of_images(files[1], images, device, first.phrases)


def _differences(files: Two, views: tuple[ModelViews, ModelViews]) -> dict[str, Difference]:
    """Compare the runs' right answers suite by suite."""
    if files[0].source.levels is None:
        first, second = (outcomes.of_views(v.views) for v in views)
        return {"boxes with negatives": difference(first, second)} if first else {}
    answered = [outcomes.of_run(f, v.model, files[0].source) for f, v in zip(files, views, strict=True)]
    return {
        suite: difference(own["top1"], answered[1][suite]["top1"])
        for suite, own in answered[0].items()
        if "top1" in own
    }


def _head(files: Two, names: Names, differences: Mapping[str, Difference]) -> str:
    pairs = {
        f"{key} {name}": value
        for name, f in zip("AB", files, strict=True)
        for key, value in (("steps", f"{f.step:,}"), ("time in steps", duration(f.seconds) if f.train else "–"))
    }
    title = "".join(f'<span class="key {s.lower()}">{s}: {escape(n)}</span> ' for s, n in zip("AB", names, strict=True))
    return (
        f'<header class="top"><p class="kicker">fgclip_fast · comparison of two runs</p><h1 class="keys">{title}</h1>'
        f'<p class="result">{escape(_sentence(names, differences))}</p>{facts(pairs)}</header>'
    )


def _sentence(names: Names, differences: Mapping[str, Difference]) -> str:
    """The result of the comparison in a sentence."""
    suite = next((name for name in ("unseen/hard", "boxes with negatives") if name in differences), None)
    if suite is None:
        return "The two runs have no questions in common that both can answer."
    d = differences[suite]
    what = "hard questions about unseen things" if suite == "unseen/hard" else "boxes with negatives"
    better, worse = (0, 1) if d.value >= 0 else (1, 0)
    shares = (d.first, d.second)
    text = f"On {what}, {names[better]} is right {percent(shares[better])} of the time"
    text += f" and {names[worse]} {percent(shares[worse])}"
    if not d.sure:
        return f"{text}; {d.images} images are too few to say that they differ."
    low, high = sorted((abs(d.low), abs(d.high)))
    return f"{text}: a difference of {100 * low:.1f} to {100 * high:.1f} points."


def _settings(files: Two, names: Names) -> str:
    """The settings in which the two configs differ."""
    first, second = (_flat(yaml.safe_load((f.path / "config.yaml").read_text())) for f in files)
    keys = [key for key in first | second if first.get(key) != second.get(key) and key != "output"]
    rows = [(key, first.get(key, "–"), second.get(key, "–")) for key in keys]
    content = table(["setting", *names], rows, "Settings") if rows else paragraph("No setting differs.", "note")
    return section("settings", "What was set differently", content)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted name → value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _accuracy(differences: Mapping[str, Difference], names: Names) -> str:
    if not differences:
        return ""
    parts = []
    for kind, title in (
        ("unseen/", "Unseen: noun and colour never came together in training"),
        ("seen/", "Seen in training"),
        ("", ""),
    ):
        own = {
            n.removeprefix(kind): d for n, d in differences.items() if (n.startswith(kind) if kind else "/" not in n)
        }
        if own:
            parts.append((f"<h3>{title}</h3>" if title else "") + _chart(own))
    text = (
        "Share of boxes for which the right text scores highest. Differences come with a 95 % interval from "
        f"{RESAMPLES} paired resamples of the images; * marks an interval that excludes zero."
    )
    keys = "".join(f'<li class="key {s.lower()}">{s}: {escape(n)}</li>' for s, n in zip("AB", names, strict=True))
    return section("accuracy", "What they can tell apart", paragraph(text), f'<ul class="keys">{keys}</ul>', *parts)


def _chart(differences: Mapping[str, Difference]) -> str:
    rows, cells = [], []
    for name in accuracy.in_order(differences):
        d = differences[name]
        rows.append((accuracy.level_title(name), [Mark(d.first, "a"), Mark(d.second, "b")]))
        cells.append([percent(d.first), percent(d.second), accuracy.in_points(d)])
    return charts.shares(rows, ["A", "B", "A − B, points"], cells, kind="two")


def _disagreements(views: tuple[ModelViews, ModelViews], names: Names) -> str:
    """Questions that only one of the two models answers rightly, with both answers side by side."""
    first_right, second_right = gallery.disagreements(views[0].views, views[1].views)
    found = len(first_right) + len(second_right)
    if not found:
        return ""
    shown = first_right[: CARDS // 2] + second_right[: CARDS // 2]
    text = f"{found} boxes in {len(views[0].views)} images are answered rightly by only one of the two."
    text += " The first of each kind:"
    cards = gallery.pairs(shown, names, (views[0].scale, views[1].scale))
    return section("answers", "Where they disagree", paragraph(text), cards)


def _training(files: Two, names: Names) -> str:
    drawn = []
    for term, title in sections.TERM_NAMES.items():
        pairs = zip(names, files, "ab", strict=True)
        drawn.append(
            charts.lines(f"Loss of {title}", [Line(n, sections.points(f.train, term), s) for n, f, s in pairs])
        )
    if not any(drawn):
        return ""
    return section("training", "How they learned", f'<div class="charts">{"".join(drawn)}</div>')


def _no_images(files: Two) -> str:
    without = [f.name for f in files if f.weights is None]
    why = f"No checkpoint yet: {', '.join(without)}." if without else "The first run has no validation images."
    return section("explore", "Images", paragraph(why, "note"))
