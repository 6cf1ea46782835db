"""Two runs side by side: the same questions, pictures and phrases, and how sure each difference is."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fgclip_fast.evaluation.pictures import View
from fgclip_fast.report import accuracy, charts, gallery, outcomes, page, sections, sight
from fgclip_fast.report.charts import Line, Mark
from fgclip_fast.report.files import RunFiles, read
from fgclip_fast.report.html import escape, facts, paragraph, percent, section, span, table
from fgclip_fast.report.outcomes import Difference
from fgclip_fast.report.sight import Sight
from fgclip_fast.scenes.locate import EMBEDDED, embedded

CARDS = 8
"""Questions shown on which the runs disagree."""


def write(run: Path, other: Path) -> Path:
    """Writes ``RUN/report-OTHER.html``: both models before the validation pictures of the first run.

    Raises:
        FileNotFoundError: one of them is no run.
        ValueError: their configs or weights are not of this version.
    """
    files = read(run), read(other)
    names = _names(files)
    seen = _both(files)
    found = _differences(files, seen) if seen else {}
    parts = [
        _head(files, names, found),
        _settings(files, names),
        _accuracy(found, names),
        page.asking(list(zip(names, seen, strict=True))) if seen else _no_pictures(files),
        _disagreements(seen, names) if seen else "",
        _training(files, names),
        *(sections.provenance(f).replace('"again"', f'"again-{i}"') for i, f in enumerate(files)),
    ]
    return page.save(run / f"report-{files[1].name}.html", f"{names[0]} and {names[1]}", parts)


def _names(files: tuple[RunFiles, RunFiles]) -> tuple[str, str]:
    first, second = (f.name for f in files)
    return (first, second) if first != second else (str(files[0].path), str(files[1].path))


def _both(files: tuple[RunFiles, RunFiles]) -> tuple[Sight, Sight] | None:
    """Both models before the same pictures, asked the same phrases; None where one of them has no weights."""
    first = sight.of_run(files[0])
    if first is None or files[1].weights is None:
        return None
    return first, sight.of_pictures(files[1], [view.picture for view in first.views], first.phrases)


def _differences(files: tuple[RunFiles, RunFiles], seen: tuple[Sight, Sight]) -> dict[str, Difference]:
    if files[0].config.data.val == EMBEDDED:
        levels = embedded() / "levels"
        answered = [
            outcomes.cached(f, partial(outcomes.of_levels, s.model, levels)) for f, s in zip(files, seen, strict=True)
        ]
    else:
        answered = [outcomes.of_views(s.views) for s in seen]
    first, second = answered
    return {suite: outcomes.difference(first[suite], second[suite]) for suite in first if suite in second}


def _head(files: tuple[RunFiles, RunFiles], names: tuple[str, str], found: Mapping[str, Difference]) -> str:
    pairs = {
        f"{key} {name}": value
        for name, f in zip("AB", files, strict=True)
        for key, value in (("steps", f"{f.step:,}"), ("time in steps", span(f.seconds) if f.train else "–"))
    }
    title = "".join(f'<span class="key {s.lower()}">{s}: {escape(n)}</span> ' for s, n in zip("AB", names, strict=True))
    return (
        f'<header class="top"><p class="kicker">fgclip_fast · two runs side by side</p><h1 class="keys">{title}</h1>'
        f'<p class="result">{escape(_sentence(names, found))}</p>{facts(pairs)}</header>'
    )


def _sentence(names: tuple[str, str], found: Mapping[str, Difference]) -> str:
    main = next((name for name in ("unseen/hard", "boxes with negatives") if name in found), None)
    if main is None:
        return "The two runs have no questions in common that both can answer."
    d = found[main]
    what = "hard questions about unseen things" if main == "unseen/hard" else "boxes with negatives"
    better, worse = (0, 1) if d.value >= 0 else (1, 0)
    shares = (d.first, d.second)
    said = f"On {what}, {names[better]} is right {percent(shares[better])} of the time"
    said += f" and {names[worse]} {percent(shares[worse])}"
    low, high = sorted((abs(d.low), abs(d.high))) if d.sure else (d.low, d.high)
    if d.sure:
        return f"{said}: a difference of {100 * low:.1f} to {100 * high:.1f} points."
    return f"{said}; {d.images} images are too few to say that they differ."


def _settings(files: tuple[RunFiles, RunFiles], names: tuple[str, str]) -> str:
    """The settings in which the two differ."""
    first, second = (_flat(yaml.safe_load((f.path / "config.yaml").read_text())) for f in files)
    keys = [key for key in first | second if first.get(key) != second.get(key) and key != "output"]
    rows = [(key, first.get(key, "–"), second.get(key, "–")) for key in keys]
    if not rows:
        return section("settings", "What was set differently", paragraph("Nothing.", "note"))
    return section("settings", "What was set differently", table(["setting", *names], rows, "Settings"))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _accuracy(found: Mapping[str, Difference], names: tuple[str, str]) -> str:
    if not found:
        return ""
    parts = []
    for kind, title in (
        ("unseen/", "Unseen: noun and colour never came together in training"),
        ("seen/", "Seen in training"),
        ("", ""),
    ):
        own = {n.removeprefix(kind): d for n, d in found.items() if (n.startswith(kind) if kind else "/" not in n)}
        if own:
            parts.append((f"<h3>{title}</h3>" if title else "") + _chart(own, names))
    said = (
        "Share of boxes for which the right text scores highest. The difference is given with its 95 % interval: "
        f"{outcomes.RESAMPLES} paired resamples of the images; where it leaves out zero it is marked with *."
    )
    keys = "".join(f'<li class="key {s.lower()}">{s}: {escape(n)}</li>' for s, n in zip("AB", names, strict=True))
    return section("accuracy", "What they can tell apart", paragraph(said), f'<ul class="keys">{keys}</ul>', *parts)


def _chart(own: Mapping[str, Difference], names: tuple[str, str]) -> str:
    rows, cells = [], []
    for name in accuracy.ordered(own):
        d = own[name]
        rows.append((accuracy.level_title(name), [Mark(d.first, "a"), Mark(d.second, "b")]))
        interval = f"{100 * d.value:+.1f} ({100 * d.low:+.1f} … {100 * d.high:+.1f}){'*' if d.sure else ''}".replace(
            "-", "−"
        )
        cells.append([percent(d.first), percent(d.second), interval])
    return charts.shares(rows, ["A", "B", "A − B, points"], cells, kind="two")


def _disagreements(seen: tuple[Sight, Sight], names: tuple[str, str]) -> str:
    """Questions that one of the two answers rightly, both answers side by side."""
    found = list(_disagreeing(seen[0].views, seen[1].views))
    if not found:
        return ""
    one = [f for f in found if f[0].first(f[2]) == 0][: CARDS // 2]
    two = [f for f in found if f[0].first(f[2]) != 0][: CARDS // 2]
    rows = [
        f'<li class="both"><h3>{escape(name)}</h3>{gallery.card(view, question, s.scale)}</li>'
        for first, second, question in one + two
        for name, view, s in zip(names, (first, second), seen, strict=True)
    ]
    said = f"{len(found)} boxes in {len(seen[0].views)} pictures are answered rightly by one of the two alone."
    said += " The first of each kind:"
    return section("answers", "Where they disagree", paragraph(said), f'<ul class="cards">{"".join(rows)}</ul>')


def _disagreeing(first: Sequence[View], second: Sequence[View]):
    for a, b in zip(first, second, strict=True):
        for question, asked in enumerate(a.picture.asked):
            if len(asked.texts) > 1 and (a.first(question) == 0) != (b.first(question) == 0):
                yield a, b, question


def _training(files: tuple[RunFiles, RunFiles], names: tuple[str, str]) -> str:
    drawn = []
    for term, title in sections.TERM_NAMES.items():
        pairs = zip(names, files, "ab", strict=True)
        drawn.append(
            charts.lines(f"Loss of {title}", [Line(n, sections.points(f.train, term), s) for n, f, s in pairs])
        )
    if not any(drawn):
        return ""
    return section("training", "How they learned", f'<div class="charts">{"".join(drawn)}</div>')


def _no_pictures(files: tuple[RunFiles, RunFiles]) -> str:
    lacking = [f.name for f in files if f.weights is None]
    why = f"No checkpoint yet: {', '.join(lacking)}." if lacking else "The first run has no validation pictures."
    return section("explore", "Pictures", paragraph(why, "note"))
